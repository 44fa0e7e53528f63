//! `NetworkMode=container:…`: the other container's network namespace, and with it its name and name
//! files. What would change any of these is refused, in dockerd's words.

use model::Result;

use super::{
    super::{body::ContainerConfig, host_config::HostConfig},
    invalid,
};

const MODE: &str = "container:";

/// The container named by the mode, if it is of this kind.
pub(crate) fn network_of(host: &HostConfig) -> Option<&str> {
    host.network_mode.strip_prefix(MODE)
}

/// The container whose processes (`PidMode`) or IPC namespace (`IpcMode`) a mode asks for.
pub(crate) fn namespace_of<'a>(field: &str, mode: &'a str) -> Option<&'a str> {
    mode.strip_prefix(MODE).filter(|name| !name.is_empty() && matches!(field, "PidMode" | "IpcMode"))
}

/// Refuses options that contradict a network that is somebody else's.
pub(super) fn check(config: &ContainerConfig, host: &HostConfig, warnings: &mut Vec<String>) -> Result<()> {
    let Some(reference) = network_of(host) else { return Ok(()) };
    if reference.is_empty() {
        return Err(invalid("invalid container format container:<name|id>"));
    }
    let some = |list: Option<&Vec<String>>| list.is_some_and(|list| !list.is_empty());
    let conflicts = [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (
            some(host.links.as_ref()),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (!host.dns.is_empty(), "dns and the network mode"),
        (some(host.extra_hosts.as_ref()), "custom host-to-IP mapping and the network mode"),
        (!config.mac_address.is_empty(), "mac-address and the network mode"),
        (
            !host.port_bindings.is_empty() || host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (!config.exposed_ports.is_empty(), "port exposing and the container type network mode"),
    ];
    if let Some((_, what)) = conflicts.into_iter().find(|(given, _)| *given) {
        return Err(invalid(format!("conflicting options: {what}")));
    }
    let theirs = [
        ("Domainname", !config.domainname.is_empty()),
        ("DnsOptions", !host.dns_options.is_empty()),
        ("DnsSearch", !host.dns_search.is_empty()),
    ];
    let without_effect = theirs.into_iter().filter(|(_, given)| *given);
    warnings.extend(without_effect.map(|(field, _)| {
        format!("{field} has no effect with the network of another container, whose names and name files are shared")
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{
        super::body::{CreateBody, typed},
        translate,
    };

    fn refusal(more: &Value) -> String {
        let mut document = json!({"HostConfig": {"NetworkMode": "container:web"}, "Cmd": ["sh"]});
        for (field, value) in more.as_object().expect("fields") {
            if field == "HostConfig" && value.is_object() {
                let own = document["HostConfig"].as_object_mut().expect("fields");
                own.extend(value.as_object().expect("fields").clone());
            } else {
                document[field] = value.clone();
            }
        }
        let body: CreateBody = typed(document).expect("parses");
        translate(&body, &model::ImageConfig::default())
            .map(|done| done.warnings.join(";"))
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn what_contradicts_a_shared_network_is_refused_in_dockerds_words() {
        let rows = [
            (json!({"Hostname": "x"}), "hostname and the network mode"),
            (json!({"HostConfig": {"Dns": ["1.1.1.1"]}}), "dns and the network mode"),
            (json!({"HostConfig": {"ExtraHosts": ["a:1.1.1.1"]}}), "custom host-to-IP mapping and the network mode"),
            (json!({"MacAddress": "02:42:ac:11:00:02"}), "mac-address and the network mode"),
            (json!({"HostConfig": {"PublishAllPorts": true}}), "port publishing and the container type network mode"),
            (
                json!({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}}),
                "port publishing and the container type network mode",
            ),
            (json!({"ExposedPorts": {"80/tcp": {}}}), "port exposing and the container type network mode"),
            (
                json!({"HostConfig": {"Links": ["a:b"]}}),
                "container type network can't be used with links. This would result in undefined behavior",
            ),
        ];
        for (more, why) in rows {
            assert_eq!(refusal(&more), format!("conflicting options: {why}"));
        }
        let nobody = json!({"HostConfig": {"NetworkMode": "container:"}});
        assert_eq!(refusal(&nobody), "invalid container format container:<name|id>");
    }

    #[test]
    fn what_has_no_effect_is_a_warning() {
        let body = json!({"Cmd": ["sh"], "HostConfig": {"NetworkMode": "container:web", "DnsSearch": ["a"]}});
        let body: CreateBody = typed(body).expect("parses");
        let done = translate(&body, &model::ImageConfig::default()).expect("taken");
        assert!(done.warnings.iter().any(|w| w.starts_with("DnsSearch has no effect")), "{:?}", done.warnings);
    }
}
