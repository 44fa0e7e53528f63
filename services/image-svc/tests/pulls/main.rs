//! Pulls, and the hosted registry, through the whole service: mutual TLS in front, real PostgreSQL behind, Debian's
//! docker-registry as an honest upstream and a server of the test's own as a hostile one.

mod archives;
mod debian;
mod hostile;
mod image;
mod logins;
mod stage;

mod honest;
mod pushes;
mod registry;
mod rights;
mod trouble;
