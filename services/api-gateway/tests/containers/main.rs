//! Containers, execs and events through the gateway's whole router, over real TCP and a real
//! PostgreSQL with the gateway's own role. The scheduler and one host are stood in for by servers
//! that speak their contracts: the host does in Postgres what its reports would do.

mod cli;
mod fleet;
mod life;
mod streams;
