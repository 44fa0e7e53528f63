//! The `reference` filter: shell patterns on familiar names, as dockerd matches them: `*` and `?`
//! stop at a slash.

use model::ImageReference;

use super::describe::Described;
use crate::docker::filters::Filters;

/// Leaves only the names that the filter matches; nothing if none does.
pub(crate) fn narrow(mut image: Described, filters: &Filters) -> Option<Described> {
    let patterns = filters.values("reference");
    if patterns.is_empty() {
        return Some(image);
    }
    let wanted = |name: &String| patterns.iter().any(|pattern| matches(pattern, name));
    image.row.tags.retain(wanted);
    image.row.digests.retain(wanted);
    (!image.row.tags.is_empty() || !image.row.digests.is_empty()).then_some(image)
}

/// Whether a pattern means a shown name: the whole of it, or its repository.
fn matches(pattern: &str, shown: &str) -> bool {
    let repository = shown.parse::<ImageReference>().map(|reference| reference.familiar_name());
    glob(pattern.as_bytes(), shown.as_bytes()) || repository.is_ok_and(|name| glob(pattern.as_bytes(), name.as_bytes()))
}

/// `*`, `?`, `[a-z]`, `[^a]` and `\` in the manner of Go's `path.Match`. Linear in `text` for every star.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(width) = one(&pattern[p.min(pattern.len())..], text[t]) {
            p += width;
            t += 1;
        } else if let Some((after, from)) = star.filter(|(_, from)| text[*from] != b'/') {
            // The last star takes one byte more, but never a slash.
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[p.min(pattern.len())..].iter().all(|b| *b == b'*')
}

/// How many bytes of the pattern match this one byte of text; none if they do not.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => (byte != b'/').then_some(1),
        [b'[', class @ ..] => {
            let end = class.iter().skip(1).position(|b| *b == b']')? + 1;
            let (negated, members) = match &class[..end] {
                [b'^', members @ ..] => (true, members),
                members => (false, members),
            };
            (in_class(members, byte) != negated && byte != b'/').then_some(end + 2)
        }
        [b'\\', literal, ..] => (*literal == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

fn in_class(members: &[u8], byte: u8) -> bool {
    match members {
        [low, b'-', high, rest @ ..] => (*low..=*high).contains(&byte) || in_class(rest, byte),
        [member, rest @ ..] => *member == byte || in_class(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::describe::tests::image, *};

    #[test]
    fn a_name_without_tag_means_every_tag_of_it() {
        assert!(matches("busybox", "busybox:1.36"));
        assert!(matches("busybox:1.*", "busybox:1.36"));
        assert!(matches("*box", "busybox:1.36"));
        assert!(matches("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:1"));
        assert!(!matches("busybox:1.35", "busybox:1.36"));
        assert!(!matches("busy", "busybox:1.36"));
    }

    #[test]
    fn a_star_stops_at_a_slash() {
        assert!(matches("r.example/*", "r.example/a:1"));
        assert!(!matches("*", "r.example/a"));
        assert!(matches("*/*", "r.example/a:1"));
    }

    #[test]
    fn classes_and_escapes_work_and_broken_ones_match_nothing() {
        assert!(matches("[a-c]x:1", "bx:1") && !matches("[^a-c]x:1", "bx:1"));
        assert!(matches(r"\bx:1", "bx:1"));
        assert!(!matches("[ab", "a") && !matches("[", "a"));
    }

    #[test]
    fn only_matching_names_are_shown() {
        let filters = Filters::parse_any(Some(r#"{"reference":["a:1"]}"#)).expect("parses");
        let narrowed = narrow(image(&["a:1", "b:1"]), &filters).expect("one name fits");
        assert_eq!(narrowed.row.tags, ["a:1"]);
        assert!(narrow(image(&["b:1"]), &filters).is_none());
    }
}
