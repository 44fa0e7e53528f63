//! The `filters` parameter: `{"label":{"a=b":true}}`, and the older `{"label":["a=b"]}`. Labels are
//! ANDed, the values of every other key ORed. A key the endpoint does not know is refused by name.

use std::collections::BTreeMap;

use model::{Error, Result};
use serde::Deserialize;

/// Parsed filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Set(BTreeMap<String, bool>),
    List(Vec<String>),
}

impl Filters {
    /// Parses the text of the parameter; every key must be one of `known`.
    pub(crate) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self> {
        let filters = Self::parse_any(text)?;
        match filters.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Error::InvalidArgument(format!("invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }

    /// Parses without a list of known keys (events accept any).
    pub(crate) fn parse_any(text: Option<&str>) -> Result<Self> {
        let Some(text) = text.filter(|t| !t.trim().is_empty()) else {
            return Ok(Self::default());
        };
        let raw: BTreeMap<String, Values> =
            serde_json::from_str(text).map_err(|e| Error::InvalidArgument(format!("invalid filters: {e}")))?;
        let listed = raw.into_iter().map(|(key, values)| {
            let values = match values {
                Values::Set(set) => set.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect(),
                Values::List(list) => list,
            };
            (key, values)
        });
        Ok(Self(listed.collect()))
    }

    /// Every value of a key; none if the key is absent.
    pub(crate) fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether the key was given with at least one value.
    pub(crate) fn has(&self, key: &str) -> bool {
        !self.values(key).is_empty()
    }

    /// True if the key is absent, or one of its values passes.
    pub(crate) fn any(&self, key: &str, passes: impl Fn(&str) -> bool) -> bool {
        !self.has(key) || self.values(key).iter().any(|value| passes(value))
    }

    /// A boolean key: `1`, `true`, `0` or `false`, once.
    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.values(key) {
            [] => Ok(None),
            [one] if matches!(one.as_str(), "1" | "true" | "True" | "TRUE") => Ok(Some(true)),
            [one] if matches!(one.as_str(), "0" | "false" | "False" | "FALSE") => Ok(Some(false)),
            values => Err(Error::InvalidArgument(format!("invalid filter '{key}={values:?}'"))),
        }
    }

    /// Whether labels satisfy every `label` and none of the `label!` values (`key` or `key=value`).
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(wanted.as_str()),
        };
        self.values("label").iter().all(holds) && !self.values("label!").iter().any(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let new = Filters::parse(Some(r#"{"label":{"a=b":true,"c":false}}"#), &["label"]).expect("parses");
        let old = Filters::parse(Some(r#"{"label":["a=b"]}"#), &["label"]).expect("parses");
        assert_eq!(new, old);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = Filters::parse(Some(r#"{"foo":["x"]}"#), &["label"]).expect_err("refused");
        assert_eq!(error.to_string(), "invalid filter 'foo'");
    }

    #[test]
    fn labels_are_anded_and_other_values_ored() {
        let filters = Filters::parse_any(Some(r#"{"label":["a=1","b"],"name":["x","y"]}"#)).expect("parses");
        assert!(filters.labels(&labels(&[("a", "1"), ("b", "")])));
        assert!(!filters.labels(&labels(&[("a", "1")])));
        assert!(filters.any("name", |v| v == "y"));
        assert!(!filters.any("name", |v| v == "z"));
        assert!(filters.any("absent", |_| false));
    }

    #[test]
    fn a_boolean_that_is_none_is_refused() {
        let filters = Filters::parse_any(Some(r#"{"dangling":["maybe"],"ok":["true"]}"#)).expect("parses");
        assert!(filters.boolean("dangling").is_err());
        assert_eq!(filters.boolean("ok"), Ok(Some(true)));
    }

    #[test]
    fn broken_json_is_refused() {
        assert!(Filters::parse_any(Some("{")).is_err());
        assert_eq!(Filters::parse_any(Some("")), Ok(Filters::default()));
    }
}
