//! The hosted registry: repositories of projects, what they link, uploads under way, signing keys.
//! Who may read a digest is decided by the links of a repository and by nothing else.

mod access;
mod keys;
mod links;
mod look;
mod manifests;
mod quota;
mod referrers;
mod repositories;
mod search;
mod uploads;

pub use access::RepositoryAccess;
pub use keys::RegistryKey;
pub use look::{Found, Look, LookedFor};
pub use manifests::{ManifestRow, NewManifest};
pub use quota::RegistryQuota;
pub use referrers::Referrer;
pub use repositories::Repository;
pub use uploads::{OpenUpload, UPLOADS_PER_PROJECT};
