//! The suite's own authority and the certificates of its control-plane services.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::Result;
use chassis::pki::{Authority, Usage};

use crate::layout::Layout;

/// Makes what is missing; what exists stays, so that hosts keep trusting it.
pub(crate) fn ensure(layout: &Layout) -> Result<()> {
    let dir = layout.pki();
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    let (ca_cert, ca_key) = (dir.join("ca.pem"), dir.join("ca.key"));
    let authority = if ca_cert.exists() && ca_key.exists() {
        Authority::load(&fs::read_to_string(&ca_cert)?, &fs::read_to_string(&ca_key)?)?
    } else {
        let authority = Authority::create("wharfage internal")?;
        write_private(&ca_key, authority.key_pem())?;
        fs::write(&ca_cert, authority.cert_pem())?;
        authority
    };
    for service in ["gateway", "scheduler", "image"] {
        let (cert, key) = (dir.join(format!("{service}.pem")), dir.join(format!("{service}.key")));
        if !cert.exists() || !key.exists() {
            let usages = [Usage::Server, Usage::Client];
            // The docker CLI checks the name it dialled; services among themselves check the common name.
            let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
            let (cert_pem, key_pem) = authority.issue_named(&format!("service:{service}"), &usages, &names, 3650)?;
            write_private(&key, &key_pem)?;
            fs::write(&cert, cert_pem)?;
        }
    }
    Ok(())
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}
