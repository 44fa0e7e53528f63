//! The running suite, as `.wharfage/env` describes it.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Docker, Rest};

/// Addresses and credentials of the running suite.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The checkout.
    pub root: PathBuf,
    vars: BTreeMap<String, String>,
}

impl Suite {
    /// Reads `.wharfage/env`.
    ///
    /// # Panics
    /// When no suite is up: `make up` first.
    #[must_use]
    pub fn here() -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the checkout").to_path_buf();
        let text = fs::read_to_string(root.join(".wharfage/env")).expect("no suite is up: run `make up`");
        let vars = text
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let suite = Self { root, vars };
        static PULLED: OnceLock<()> = OnceLock::new();
        PULLED.get_or_init(|| suite.pull_what_tests_use());
        suite
    }

    /// Tests by REST do not pull what they create from.
    fn pull_what_tests_use(&self) {
        for docker in [self.docker(), self.docker_as(self.var("WHARFAGE_TOKEN_2"))] {
            for image in ["busybox", "httpd", "hello-world"] {
                let _ = docker.ok(&["pull", "-q", image]);
            }
        }
    }

    /// A variable of `.wharfage/env`.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn var(&self, name: &str) -> &str {
        self.vars.get(name).unwrap_or_else(|| panic!("{name} is not in .wharfage/env"))
    }

    /// Addresses of the hosts, in order.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        (1..).map_while(|n| self.vars.get(&format!("WHARFAGE_NODE_{n}")).cloned()).collect()
    }

    /// The docker CLI in the demo project.
    #[must_use]
    pub fn docker(&self) -> Docker {
        Docker::with_config(self, self.var("DOCKER_CONFIG"))
    }

    /// The docker CLI with any token.
    #[must_use]
    pub fn docker_as(&self, token: &str) -> Docker {
        Docker::with_token(self, token)
    }

    /// REST in the demo project.
    #[must_use]
    pub fn rest(&self) -> Rest {
        self.rest_as(Some(self.var("WHARFAGE_TOKEN")))
    }

    /// REST in the other tenant's project.
    #[must_use]
    pub fn rest_2(&self) -> Rest {
        self.rest_as(Some(self.var("WHARFAGE_TOKEN_2")))
    }

    /// REST as the operator.
    #[must_use]
    pub fn rest_admin(&self) -> Rest {
        self.rest_as(Some(self.var("WHARFAGE_ADMIN_TOKEN")))
    }

    /// REST with any token, or none.
    #[must_use]
    pub fn rest_as(&self, token: Option<&str>) -> Rest {
        Rest::to(self.var("WHARFAGE_URL"), token)
    }

    /// The pid of a supervised process.
    ///
    /// # Panics
    /// When it has no pid file.
    #[must_use]
    pub fn pid_of(&self, process: &str) -> i32 {
        let file = self.root.join(format!(".wharfage/run/{process}.pid"));
        // It is empty for a moment when the process is started again.
        for _ in 0..100 {
            let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            if let Ok(pid) = text.trim().parse() {
                return pid;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no pid in {}", file.display())
    }
}

/// A name nobody else in this run uses.
#[must_use]
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until the condition holds.
///
/// # Panics
/// When it does not within `limit`.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}
