//! Names for containers nobody named: an adjective and somebody who built or explored something.

use model::{ContainerName, Error, Result};

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "ample", "astute", "balmy", "blithe", "bold", "brave", "brisk", "calm", "candid",
    "careful", "cheery", "clever", "coastal", "cosy", "crisp", "daring", "deft", "eager", "earnest", "fair", "firm",
    "fleet", "fond", "frank", "gentle", "glad", "golden", "hardy", "hearty", "honest", "humble", "jolly", "keen",
    "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild", "nimble", "noble", "patient", "plucky", "polite",
    "proud", "quick", "quiet", "ready", "serene", "sharp", "sleek", "smooth", "snug", "steady", "sturdy", "sunny",
    "trusty", "upbeat", "vivid", "witty",
];

const SURNAMES: [&str; 64] = [
    "amundsen",
    "anning",
    "babbage",
    "baret",
    "bell",
    "blackwell",
    "bly",
    "boole",
    "brunel",
    "cartwright",
    "celsius",
    "cook",
    "curie",
    "darwin",
    "diesel",
    "earhart",
    "edison",
    "ericsson",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "franklin",
    "fulton",
    "galileo",
    "gauss",
    "goodall",
    "hamilton",
    "harrison",
    "heaviside",
    "herschel",
    "hopper",
    "humboldt",
    "huygens",
    "jemison",
    "johnson",
    "kepler",
    "khwarizmi",
    "kovalevskaya",
    "lamarr",
    "linnaeus",
    "lovelace",
    "magellan",
    "maxwell",
    "meitner",
    "mercator",
    "mitchell",
    "nansen",
    "newton",
    "noether",
    "pascal",
    "polo",
    "ramanujan",
    "ride",
    "shackleton",
    "somerville",
    "tasman",
    "tereshkova",
    "tesla",
    "turing",
    "volta",
    "watt",
    "wegener",
    "zheng",
];

/// One at random; after the first `attempt` with a number, as the plain ones run out.
pub(crate) fn draw(attempt: u32) -> Result<ContainerName> {
    let [a, b, c, d] = chassis::ids::random_bytes::<4>();
    let (adjective, surname) = (ADJECTIVES[usize::from(a) % 64], SURNAMES[usize::from(b) % 64]);
    let name = match attempt {
        0 => format!("{adjective}_{surname}"),
        _ => format!("{adjective}_{surname}_{}", u16::from_be_bytes([c, d])),
    };
    name.parse().map_err(|e: Error| Error::internal(e))
}

/// A valid name to stand in until one is drawn.
pub(crate) fn fallback() -> ContainerName {
    "unnamed".parse().expect("seven letters are a valid name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_name_is_an_adjective_and_a_surname() {
        for attempt in 0..3 {
            let name = draw(attempt).expect("valid");
            assert!(name.as_str().split('_').count() >= 2, "{name}");
        }
    }
}
