//! New limits for a container that runs. Its bundle says what it was given last, so whoever asks again
//! (an agent that was killed between the plan and the kernel) finds out whether there is anything to do.

use std::path::Path;

use model::Resources;
use serde_json::Value;

use crate::{
    Error, Result, bundle,
    cgroup::{self, HostCgroups},
    spec,
};

/// Limits about to be applied.
#[derive(Clone, Debug)]
pub struct Relimit {
    /// The OCI resources document for [`crate::OciRuntime::update`].
    pub document: Vec<u8>,
    /// What this host cannot limit.
    pub warnings: Vec<String>,
    configuration: Value,
}

impl Relimit {
    /// Compares what is wanted with what the bundle says; `None` if that is the same.
    ///
    /// # Errors
    /// There is no such bundle.
    pub fn of(bundle: &Path, wanted: &Resources) -> Result<Option<Self>> {
        let mut configuration = bundle::configuration(bundle)?;
        let mut warnings = Vec::new();
        let resources = spec::limits(wanted, &HostCgroups::probe(), &mut warnings)?;
        let known = &mut configuration["linux"]["resources"];
        if *known == resources {
            return Ok(None);
        }
        let document = serde_json::to_vec(&live(resources.clone())).map_err(document_error)?;
        *known = resources;
        Ok(Some(Self { document, warnings, configuration }))
    }

    /// Applies them without the runtime, to a container that was started without it.
    ///
    /// # Errors
    /// The kernel does not take them, in the words that an update by runc has.
    pub fn apply(&self, cgroup_path: &str) -> std::result::Result<(), String> {
        let document = serde_json::from_slice(&self.document).unwrap_or_default();
        let limits = cgroup::Limits::known(&document).ok_or("these limits are not known to Wharfage")?;
        limits.apply(cgroup_path)
    }

    /// Writes down that they were applied.
    ///
    /// # Errors
    /// The disk is full.
    pub fn note(&self, bundle: &Path) -> Result<()> {
        bundle::write_configuration(bundle, &serde_json::to_vec(&self.configuration).map_err(document_error)?)
    }
}

fn document_error(source: serde_json::Error) -> Error {
    Error::Document { what: "OCI resources".into(), source }
}

/// What is absent stays as it is in an update, so a quota that goes has to be named. Devices are
/// decided at the start and never again.
fn live(mut resources: Value) -> Value {
    if let Some(fields) = resources.as_object_mut() {
        fields.remove("devices");
    }
    if let Some(cpu) = resources.get_mut("cpu").and_then(Value::as_object_mut) {
        cpu.entry("quota").or_insert(Value::from(-1));
    }
    resources
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quota_that_is_gone_is_lifted_and_devices_are_not_touched() {
        let told = live(json!({"devices": [1], "cpu": {"shares": 5}, "memory": {"limit": 7}}));
        assert_eq!(told, json!({"cpu": {"shares": 5, "quota": -1}, "memory": {"limit": 7}}));
        assert_eq!(live(json!({"cpu": {"quota": 9}})), json!({"cpu": {"quota": 9}}));
    }
}
