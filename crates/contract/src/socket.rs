//! Hosts and gateway: requests that come out of a container by its `/var/run/docker.sock`. The host passes
//! each on to the gateway's listener for hosts, shows its own certificate, and says in [`CLAIM`] for
//! which run of which of its containers it asks. The rest is the Docker API as it is.

use std::{fmt, str::FromStr};

use model::{ContainerId, Error};

/// Header of every such request: a [`Claim`] as text. What a container sends under this name, and as
/// `Authorization`, is taken off by the host, and looked at by nobody on any other listener.
pub const CLAIM: &str = "x-wharfage-container";

/// On whose behalf a host asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The container.
    pub container: ContainerId,
    /// Its run.
    pub run: u32,
    /// The host's restart within the run.
    pub restart: u32,
}

/// `<container> <run> <restart>`
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.container, self.run, self.restart)
    }
}

impl FromStr for Claim {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split(' ');
        let mut next = || parts.next().ok_or_else(|| Error::invalid(CLAIM, "is not a container, a run and a restart"));
        let number = |text: &str| text.parse::<u32>().map_err(|_| Error::invalid(CLAIM, "has a number that is none"));
        let (container, run, restart) = (next()?.parse()?, number(next()?)?, number(next()?)?);
        match parts.next() {
            None => Ok(Self { container, run, restart }),
            Some(_) => Err(Error::invalid(CLAIM, "says too much")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_survives_its_header() {
        let claim = Claim { container: ContainerId::from_bytes([7; 32]), run: 3, restart: 1 };
        assert_eq!(claim.to_string().parse(), Ok(claim));
        for bad in ["", "x 1 1", &format!("{} 1", "0".repeat(64)), &format!("{} 1 2 3", "0".repeat(64))] {
            assert!(bad.parse::<Claim>().is_err(), "{bad}");
        }
    }
}
