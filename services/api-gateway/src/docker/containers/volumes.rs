//! The volumes of a container that is being created: names become volumes of the project, other
//! containers' volumes join, and all of them are used from the same transaction on.

use model::{ContainerId, ContainerSpec, EventKind, Result, SocketMount, VolumeId, VolumeMount, VolumeName};
use store::{ContainerRecord, ProjectTx};

use super::translate::{Shared, WantedMount};
use crate::{
    Gateway,
    docker::volumes::{find_or_make, mountpoint},
};

/// What was made for a container on the way.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) names: Vec<VolumeName>,
    pub(super) ids: Vec<VolumeId>,
}

/// Fills in the volumes of a spec. What was wanted by the user beats what is shared, and both beat
/// what an image declares.
pub(super) async fn fill(
    gateway: &Gateway,
    tx: &mut ProjectTx,
    spec: &mut ContainerSpec,
    wanted: Vec<WantedMount>,
    shared: Vec<Shared>,
) -> Result<Made> {
    let mut mounts: Vec<VolumeMount> = Vec::new();
    for Shared { container, read_only } in shared {
        let other = tx.find_container(&container).await?.spec;
        for socket in &other.docker_sockets {
            if spec.docker_sockets.iter().all(|own| own.path != socket.path) {
                spec.docker_sockets.push(SocketMount { read_only: socket.read_only || read_only, ..socket.clone() });
            }
        }
        for mount in other.volumes.clone() {
            mounts.retain(|earlier| earlier.path != mount.path);
            // It was filled for the other one, if at all.
            mounts.push(VolumeMount { read_only: mount.read_only || read_only, no_copy: true, ..mount });
        }
    }
    mounts.retain(|mount| spec.tmpfs.iter().all(|tmpfs| tmpfs.path != mount.path));
    mounts.retain(|mount| spec.docker_sockets.iter().all(|socket| socket.path != mount.path));
    spec.docker_sockets.retain(|socket| wanted.iter().all(|want| want.is_default || want.path != socket.path));
    let mut made = Made::default();
    for want in wanted {
        let is_taken = mounts.iter().any(|mount| mount.path == want.path)
            || spec.docker_sockets.iter().any(|socket| socket.path == want.path);
        if want.is_default && is_taken {
            continue;
        }
        mounts.retain(|earlier| earlier.path != want.path);
        let found = find_or_make(gateway, tx, &want.volume).await?;
        if found.is_new {
            made.names.push(found.name.clone());
            made.ids.push(found.id.clone());
        }
        mounts.push(VolumeMount {
            volume: found.id,
            name: found.name,
            backing: found.backing,
            path: want.path,
            subpath: want.subpath,
            read_only: want.read_only,
            no_copy: want.no_copy,
            anonymous: want.volume.name.is_none(),
            shown_mode: want.shown_mode,
        });
    }
    spec.volumes = mounts;
    Ok(made)
}

/// The volumes of a container, each once.
pub(super) fn of(spec: &ContainerSpec) -> Vec<VolumeId> {
    let mut ids: Vec<VolumeId> = spec.volumes.iter().map(|mount| mount.volume.clone()).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Those that were made for it, or for a container it shares them with.
pub(super) fn anonymous(container: &ContainerRecord) -> Vec<VolumeId> {
    let mounts = container.spec.volumes.iter().filter(|mount| mount.anonymous);
    mounts.map(|mount| mount.volume.clone()).collect()
}

/// Tells the history of new volumes; do it last in the transaction.
pub(super) async fn created(gateway: &Gateway, tx: &mut ProjectTx, made: &Made) -> Result<()> {
    for name in &made.names {
        let attributes = [("driver".to_owned(), "local".to_owned())].into();
        tx.append_event(EventKind::Volume, "create", name.as_str(), &attributes, gateway.clock.now()).await?;
    }
    Ok(())
}

/// Volumes and the shown tmpfs mounts as Docker's mount points.
pub(super) fn mount_points(spec: &ContainerSpec) -> Vec<serde_json::Value> {
    let volumes = spec.volumes.iter().map(|mount| {
        serde_json::json!({
            "Type": "volume",
            "Name": mount.name,
            "Source": mountpoint(&mount.name),
            "Destination": mount.path,
            "Driver": "local",
            "Mode": mount.shown_mode,
            "RW": !mount.read_only,
            "Propagation": "",
        })
    });
    // As dockerd: those of `--mount`, not those of `--tmpfs`.
    let memory = spec.tmpfs.iter().filter(|mount| mount.is_shown).map(|mount| {
        serde_json::json!({
            "Type": "tmpfs", "Source": "", "Destination": mount.path, "Mode": "", "RW": !mount.read_only, "Propagation": "",
        })
    });
    let sockets = spec.docker_sockets.iter().map(|mount| {
        serde_json::json!({
            "Type": "bind", "Source": mount.shown_source, "Destination": mount.path, "Mode": mount.shown_mode,
            "RW": !mount.read_only, "Propagation": "rprivate",
        })
    });
    volumes.chain(sockets).chain(memory).collect()
}

/// Whether a container has a volume of that name, or anything mounted at that path.
pub(super) fn has(spec: &ContainerSpec, wanted: &str) -> bool {
    spec.volumes.iter().any(|mount| mount.name.as_str() == wanted || mount.path == wanted)
        || spec.docker_sockets.iter().any(|mount| mount.shown_source == wanted || mount.path == wanted)
        || spec.tmpfs.iter().any(|mount| mount.is_shown && mount.path == wanted)
}

/// Has the container use its volumes. Its row is written.
pub(super) async fn take(tx: &mut ProjectTx, id: &ContainerId, spec: &ContainerSpec) -> Result<()> {
    if spec.volumes.is_empty() { Ok(()) } else { tx.use_volumes(id, &of(spec)).await }
}
