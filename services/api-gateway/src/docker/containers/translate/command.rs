//! What is executed: the image's entrypoint, command and environment under the user's.

use model::{ImageConfig, Result};

use super::{super::body::ContainerConfig, invalid};

/// Docker's rule: a new entrypoint drops the image's command; `[""]` clears the entrypoint.
pub(super) fn merge(config: &ContainerConfig, image: &ImageConfig) -> Result<(Vec<String>, Vec<String>)> {
    let user_cmd = config.cmd.as_ref().map(|words| words.0.clone()).unwrap_or_default();
    let user_entrypoint = config.entrypoint.as_ref().map(|words| words.0.clone());
    let no_entrypoint_given = user_entrypoint.as_ref().is_none_or(Vec::is_empty);
    let cmd = if no_entrypoint_given && user_cmd.is_empty() { image.cmd.clone() } else { user_cmd };
    let entrypoint = match user_entrypoint {
        None => image.entrypoint.clone(),
        Some(words) if words == [""] => Vec::new(),
        Some(words) => words,
    };
    if entrypoint.is_empty() && cmd.is_empty() {
        return Err(invalid("no command specified"));
    }
    Ok((entrypoint, cmd))
}

/// The user's variables, then those of the image that the user did not set. A name alone removes the image's.
pub(super) fn environment(user: &[String], image: &[String]) -> Result<Vec<String>> {
    if let Some(bad) = user.iter().find(|entry| name(entry).is_empty()) {
        return Err(invalid(format!("invalid environment variable: {bad}")));
    }
    let mut all = shown_environment(user, image);
    all.retain(|entry| entry.contains('='));
    Ok(all)
}

/// The same with the names alone, as dockerd keeps it.
pub(super) fn shown_environment(user: &[String], image: &[String]) -> Vec<String> {
    let inherited = image.iter().filter(|entry| !user.iter().any(|u| name(u) == name(entry)));
    user.iter().chain(inherited).cloned().collect()
}

fn name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

pub(super) fn working_dir(user: &str, image: &str) -> Result<String> {
    let chosen = if user.is_empty() { image } else { user };
    if chosen.is_empty() || chosen.starts_with('/') {
        Ok(chosen.to_owned())
    } else {
        Err(invalid(format!("the working directory '{chosen}' is invalid, it needs to be an absolute path")))
    }
}
