//! Platforms as the newer parts of the API write them: a JSON object of the OCI image spec. (Pull, create
//! and build write `os/arch/variant`.)

use model::{Error, Result};
use serde::Deserialize;
use store::ImageRow;

use super::{query::Query, version::RequestedVersion};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    os: String,
    architecture: String,
    variant: String,
    #[serde(rename = "os.version")]
    os_version: String,
    #[serde(rename = "os.features")]
    os_features: Option<Vec<String>>,
}

/// Every value of `platform`, as `os/arch[/variant]`; none before the version that brought it.
pub(crate) fn all(query: &Query, version: RequestedVersion, since: u16) -> Result<Vec<String>> {
    every("platform", query, version, since)
}

/// Every value of `platforms`, likewise.
pub(crate) fn several(query: &Query, version: RequestedVersion, since: u16) -> Result<Vec<String>> {
    every("platforms", query, version, since)
}

fn every(key: &str, query: &Query, version: RequestedVersion, since: u16) -> Result<Vec<String>> {
    if !version.at_least(since) {
        return Ok(Vec::new());
    }
    query.all(key).filter(|text| !text.is_empty()).map(parse).collect()
}

/// Its one value.
pub(crate) fn one(query: &Query, version: RequestedVersion, since: u16) -> Result<Option<String>> {
    let mut found = all(query, version, since)?;
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(Error::InvalidArgument("multiple platform parameters are not supported".into())),
    }
}

/// Whether an image is of the platform that is asked for. It has one here.
pub(crate) fn check(wanted: Option<&str>, image: &ImageRow, name: &str) -> Result<()> {
    let mut words = wanted.unwrap_or_default().split('/');
    let fits = words.next() == Some(image.os.as_str()) && words.next() == Some(image.architecture.as_str());
    match wanted {
        Some(wanted) if !fits => Err(Error::NotFound(format!(
            "image with reference {name} was found but its platform ({}/{}) does not match the specified platform ({wanted})",
            image.os, image.architecture
        ))),
        Some(_) | None => Ok(()),
    }
}

/// dockerd's rules and texts.
fn parse(text: &str) -> Result<String> {
    let document: Document =
        serde_json::from_str(text).map_err(|e| Error::InvalidArgument(format!("failed to parse platform: {e}")))?;
    let Document { os, architecture, variant, os_version, os_features } = document;
    if !os_version.is_empty() || os_features.is_some_and(|features| !features.is_empty()) {
        return Err(Error::InvalidArgument("os.version and os.features of a platform are not supported".into()));
    }
    match (os.is_empty() || architecture.is_empty(), variant.is_empty()) {
        (false, true) => Ok(format!("{os}/{architecture}")),
        (false, false) => Ok(format!("{os}/{architecture}/{variant}")),
        (true, false) if os.is_empty() && architecture.is_empty() => {
            Err(Error::InvalidArgument("optional platform fields provided, but OS and Architecture are missing".into()))
        }
        (true, _) => Err(Error::InvalidArgument("both OS and Architecture must be provided".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::version::ApiVersion;

    #[test]
    fn a_platform_names_system_and_architecture() {
        assert_eq!(parse(r#"{"os":"linux","architecture":"amd64"}"#), Ok("linux/amd64".into()));
        assert_eq!(parse(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#), Ok("linux/arm/v7".into()));
        for bad in [
            "linux/amd64",
            r#"{"os":"linux"}"#,
            r#"{"variant":"v7"}"#,
            "{}",
            r#"{"os":"linux","architecture":"amd64","os.version":"1"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn it_is_not_read_before_its_version_and_once_where_one_is_meant() {
        let query = Query::parse("platform=%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22amd64%22%7D");
        let version = |minor| RequestedVersion(ApiVersion::one(minor));
        assert_eq!(one(&query, version(47), 48), Ok(None));
        assert_eq!(one(&query, version(48), 48), Ok(Some("linux/amd64".into())));
        let twice = "platform=%7B%22os%22%3A%22l%22%2C%22architecture%22%3A%22a%22%7D"
            .repeat(2)
            .replace("Dplatform", "D&platform");
        assert!(one(&Query::parse(&twice), version(48), 48).is_err());
        assert_eq!(all(&Query::parse(&twice), version(52), 48).map(|all| all.len()), Ok(2));
    }
}
