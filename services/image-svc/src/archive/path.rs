//! Names of an archive's members. They are compared, never opened: what leads out of the archive, or
//! could be read in two ways, is refused.

use std::{fmt, io};

use super::refuse;
use crate::limits::MEMBER_PATH_BYTES_MAX;

/// A name below the archive's root: words joined by single slashes, none of them `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MemberPath(String);

impl MemberPath {
    /// Reads a name; `None` for the root itself.
    pub(super) fn parse(written: &[u8]) -> io::Result<Option<Self>> {
        Self::below(Vec::new(), written, false)
    }

    /// Where a symbolic link of this name leads.
    pub(super) fn linked(&self, target: &[u8]) -> io::Result<Option<Self>> {
        let mut at: Vec<&str> = self.0.split('/').collect();
        at.pop();
        Self::below(at, target, true)
    }

    fn below<'a>(mut at: Vec<&'a str>, written: &'a [u8], up: bool) -> io::Result<Option<Self>> {
        let shown = || String::from_utf8_lossy(written).chars().take(200).collect::<String>();
        let text = std::str::from_utf8(written).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| refuse(format!("{:?} is no name", shown())))?;
        if text.len() > MEMBER_PATH_BYTES_MAX {
            return Err(refuse(format!("a name has more than {MEMBER_PATH_BYTES_MAX} bytes: {:?}", shown())));
        }
        if text.starts_with('/') {
            return Err(refuse(format!("{:?} leads out of it", shown())));
        }
        for word in text.split('/') {
            match word {
                "" | "." => {}
                ".." if up && at.pop().is_some() => {}
                ".." => return Err(refuse(format!("{:?} leads out of it", shown()))),
                word => at.push(word),
            }
        }
        Ok((!at.is_empty()).then(|| Self(at.join("/"))))
    }
}

impl fmt::Display for MemberPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        MemberPath::parse(text.as_bytes()).expect(text).map(|path| path.to_string())
    }

    #[test]
    fn a_name_has_one_spelling() {
        for written in ["a/b", "./a/b", "a//b/", "a/./b"] {
            assert_eq!(read(written).as_deref(), Some("a/b"), "{written}");
        }
        assert_eq!((read("./"), read("")), (None, None));
    }

    #[test]
    fn what_leads_out_is_refused() {
        let long = "a/".repeat(MEMBER_PATH_BYTES_MAX);
        for bad in ["/etc/shadow", "../x", "a/../../x", "a/..", "a\0b", long.as_str()] {
            assert!(MemberPath::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(MemberPath::parse(b"\xff").is_err());
    }

    #[test]
    fn a_link_leads_from_where_it_is_and_never_out() {
        let link = MemberPath::parse(b"abc/layer.tar").expect("a name").expect("not the root");
        let to = |target: &str| link.linked(target.as_bytes()).map(|path| path.map(|p| p.to_string()));
        assert_eq!(to("../def/layer.tar").expect("inside").as_deref(), Some("def/layer.tar"));
        assert_eq!(to("other.tar").expect("inside").as_deref(), Some("abc/other.tar"));
        assert_eq!(to("..").expect("the root"), None);
        assert!(to("../../x").is_err() && to("/etc/passwd").is_err());
    }
}
