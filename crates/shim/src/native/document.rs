//! An OCI process document whose every field is known here. A field that is not known might ask for
//! less than it would get: then there is no [`Process`], and the runtime, which knows it, is asked.

use serde::Deserialize;
use serde_json::Value;

/// What to run, as whom.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Process {
    #[serde(default)]
    pub(super) terminal: bool,
    #[serde(default)]
    pub(super) console_size: Option<Size>,
    pub(super) user: User,
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    pub(super) capabilities: Capabilities,
    #[serde(default)]
    pub(super) rlimits: Option<Vec<Rlimit>>,
    #[serde(default)]
    pub(super) no_new_privileges: Option<bool>,
    #[serde(default)]
    pub(super) oom_score_adj: Option<i32>,
    #[serde(default)]
    apparmor_profile: Option<String>,
    #[serde(default)]
    selinux_label: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Size {
    pub(super) height: u16,
    pub(super) width: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    #[serde(default)]
    pub(super) additional_gids: Option<Vec<u32>>,
}

/// Names, with `CAP_`. What is absent is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Capabilities {
    pub(super) bounding: Option<Vec<String>>,
    pub(super) effective: Option<Vec<String>>,
    pub(super) permitted: Option<Vec<String>>,
    inheritable: Option<Vec<String>>,
    ambient: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rlimit {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) soft: u64,
    pub(super) hard: u64,
}

impl Process {
    /// The document, if all of it is understood.
    pub(super) fn known(document: &Value) -> Option<Self> {
        let process: Self = serde_json::from_value(document.clone()).ok()?;
        process.is_understood().then_some(process)
    }

    fn is_understood(&self) -> bool {
        let none = |label: &Option<String>| label.as_deref().is_none_or(str::is_empty);
        let empty = |set: &Option<Vec<String>>| set.as_deref().is_none_or(<[String]>::is_empty);
        let caps = &self.capabilities;
        let plain = none(&self.apparmor_profile)
            && none(&self.selinux_label)
            && empty(&caps.inheritable)
            && empty(&caps.ambient)
            && !self.args.is_empty();
        let mut names = [&caps.bounding, &caps.effective, &caps.permitted].into_iter().flatten().flatten();
        let mut limits = self.rlimits.iter().flatten();
        plain
            && names.all(|name| name.parse::<caps::Capability>().is_ok())
            && limits.all(|limit| runtime::rlimit::resource(&limit.kind).is_some())
    }

    /// A capability that it, or what it becomes, could hold.
    pub(super) fn may_ever_have(&self, name: &str) -> bool {
        let sets = [&self.capabilities.bounding, &self.capabilities.permitted, &self.capabilities.effective];
        sets.into_iter().flatten().flatten().any(|held| held == name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({"terminal": false, "consoleSize": null, "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
            "args": ["true"], "env": ["PATH=/bin"], "cwd": "/", "capabilities": {"bounding": ["CAP_CHOWN"],
            "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "inheritable": [], "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}], "noNewPrivileges": true})
    }

    #[test]
    fn what_is_not_understood_is_left_to_the_runtime() {
        assert!(Process::known(&document()).is_some());
        let changed = |path: &str, value: Value| {
            let mut document = document();
            *document.pointer_mut(path).expect("is there") = value;
            Process::known(&document).is_none()
        };
        assert!(changed("/capabilities/ambient", json!(["CAP_CHOWN"])));
        assert!(changed("/capabilities/inheritable", json!(["CAP_CHOWN"])));
        assert!(changed("/capabilities/bounding", json!(["CAP_OF_TOMORROW"])));
        assert!(changed("/rlimits/0/type", json!("RLIMIT_OF_TOMORROW")));
        assert!(changed("/args", json!([])));
        for (field, value) in [
            ("scheduler", json!({"policy": "SCHED_FIFO"})),
            ("apparmorProfile", json!("docker-default")),
            ("selinuxLabel", json!("system_u:system_r:container_t:s0")),
        ] {
            let mut document = document();
            document[field] = value;
            assert!(Process::known(&document).is_none(), "{field}");
        }
    }
}
