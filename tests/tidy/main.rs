//! Rules about the source itself: who may depend on whom, how files look, that what is checked in parses.

mod compatibility;
mod compose;
mod dependencies;
mod files;
mod isolation;
