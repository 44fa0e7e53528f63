//! One host, the real docker CLI and plain REST: everything the first slice promises a user.
//! Needs a running suite (`make up`); `make test` brings one up.

mod archives;
mod bad_input;
mod commit;
mod docker_socket;
mod exec;
mod files;
mod health;
mod images;
mod isolation;
mod lifecycle;
mod links;
mod login;
mod network;
mod networks;
mod openapi;
mod options;
mod pause;
mod platform;
mod policy;
mod registries;
mod registry;
mod runtimes;
mod shared_namespaces;
mod shared_network;
mod streams;
mod supervision;
mod tenancy;
mod update;
mod volumes;
