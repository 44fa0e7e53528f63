//! Namespaces without a name, made ahead of need: making one is half the cost of a sandbox. They are
//! kept for the owners that asked last, since who starts one container often starts another.

use std::{collections::VecDeque, fs::File, os::linux::fs::MetadataExt as _, path::Path, rc::Rc};

use super::{
    error::{Doing as _, Result},
    netns::{self, NewNamespace},
};

/// Kept for the owner that asked last: a burst of starts finds them.
const PER_OWNER: usize = 8;
/// Kept in all.
const IN_ALL: usize = 32;

/// See the module.
#[derive(Default)]
pub(super) struct Spares {
    /// The oldest first.
    waiting: VecDeque<(Owner, NewNamespace)>,
    last: Owner,
}

/// A user namespace; the host's is none. Told apart by inode: a file may come to hold another one.
#[derive(Clone, Default)]
struct Owner(Option<Rc<(u64, File)>>);

impl Owner {
    fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let what = || format!("opening the user namespace {}", path.display());
        let file = File::open(path).doing(what)?;
        let inode = file.metadata().doing(what)?.st_ino();
        Ok(Self(Some(Rc::new((inode, file)))))
    }

    fn inode(&self) -> Option<u64> {
        self.0.as_deref().map(|(inode, _)| *inode)
    }

    fn make(&self, host: &File) -> Result<NewNamespace> {
        netns::make(host, self.0.as_deref().map(|(_, file)| file))
    }
}

impl Spares {
    /// One that belongs to `owner`, ready or made now.
    pub(super) fn take(&mut self, host: &File, owner: Option<&Path>) -> Result<NewNamespace> {
        self.last = Owner::open(owner)?;
        let fits = |(of, _): &(Owner, NewNamespace)| of.inode() == self.last.inode();
        match self.waiting.iter().position(fits).and_then(|at| self.waiting.remove(at)) {
            Some((_, namespace)) => Ok(namespace),
            None => self.last.make(host),
        }
    }

    /// Makes one for the owner that asked last, unless there are enough. Whether there is more to make.
    pub(super) fn prepare(&mut self, host: &File) -> Result<bool> {
        let there = self.waiting.iter().filter(|(of, _)| of.inode() == self.last.inode()).count();
        if there < PER_OWNER {
            let namespace = self.last.make(host)?;
            self.waiting.push_back((self.last.clone(), namespace));
            if self.waiting.len() > IN_ALL {
                drop(self.waiting.pop_front());
            }
        }
        Ok(there + 1 < PER_OWNER)
    }
}
