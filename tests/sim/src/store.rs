//! A store whose requests fail, half-way or after they were done.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use alluvium::{
    Bytes, CheckpointStore, Error, ErrorKind, Fs, ObjectName, ReadableFile, Result, Stored,
};
use std::path::PathBuf;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Put,
    Get,
    List,
    Delete,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It fails, and was not done. A put has consumed half of its source.
    Before,
    /// It was done; the answer is lost. For a get: as `Before`.
    Lost,
    /// It was done, the answer was lost, and it is sent a second time: whoever asked gets the second
    /// answer.
    Repeated,
    /// A get gives the first half of the object. For others: as `Before`.
    Truncated,
    /// A list shows what there was at the list before. For others: as `Before`.
    Stale,
}

pub const REQUESTS: [(&str, Request); 4] = [
    ("put", Request::Put),
    ("get", Request::Get),
    ("list", Request::List),
    ("delete", Request::Delete),
];
pub const TROUBLES: [(&str, Trouble); 5] = [
    ("before", Trouble::Before),
    ("lost", Trouble::Lost),
    ("repeated", Trouble::Repeated),
    ("truncated", Trouble::Truncated),
    ("stale", Trouble::Stale),
];

/// From the request after `skip` of this kind on, once or always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreFault {
    pub request: Request,
    pub skip: u64,
    pub trouble: Trouble,
    pub sticky: bool,
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = REQUESTS.iter().find(|(_, r)| *r == self.request).expect("listed").0;
        let trouble = TROUBLES.iter().find(|(_, t)| *t == self.trouble).expect("listed").0;
        let often = if self.sticky { "sticky" } else { "once" };
        write!(f, "store:{request}:{}:{trouble}:{often}", self.skip)
    }
}

pub struct FaultStore {
    /// A list may be old; the store says so.
    stale: bool,
    state: Mutex<State>,
}

struct State {
    inner: Option<Arc<dyn CheckpointStore>>,
    fault: Option<StoreFault>,
    struck: u64,
    last_list: Vec<Stored>,
}

impl FaultStore {
    pub fn new(fault: StoreFault) -> FaultStore {
        let state = State { inner: None, fault: Some(fault), struck: 0, last_list: Vec::new() };
        FaultStore { stale: fault.trouble == Trouble::Stale, state: Mutex::new(state) }
    }

    /// The store behind it.
    pub fn set(&self, inner: Arc<dyn CheckpointStore>) {
        self.state.lock().inner = Some(inner);
    }

    pub fn clear(&self) {
        self.state.lock().fault = None;
    }

    pub fn struck(&self) -> u64 {
        self.state.lock().struck
    }

    fn request(&self, request: Request) -> (Arc<dyn CheckpointStore>, Option<Trouble>) {
        let mut state = self.state.lock();
        let inner = state.inner.clone().expect("set before use");
        let Some(fault) = state.fault.as_mut().filter(|fault| fault.request == request) else {
            return (inner, None);
        };
        if fault.skip > 0 {
            fault.skip -= 1;
            return (inner, None);
        }
        let fault = *fault;
        if !fault.sticky {
            state.fault = None;
        }
        state.struck += 1;
        (inner, Some(fault.trouble))
    }
}

fn failed(what: &str) -> Error {
    Error::new(ErrorKind::Io, format!("{what}: the store fails"))
}

impl CheckpointStore for FaultStore {
    fn put_new(
        &self,
        name: &ObjectName,
        source: &mut dyn Iterator<Item = Result<Bytes>>,
    ) -> Result<()> {
        let (inner, trouble) = self.request(Request::Put);
        match trouble {
            None => inner.put_new(name, source),
            Some(Trouble::Lost) => {
                inner.put_new(name, source)?;
                Err(failed("put, done"))
            }
            Some(Trouble::Repeated) => {
                inner.put_new(name, source)?;
                inner.put_new(name, &mut std::iter::empty())
            }
            Some(_) => {
                drop(source.next());
                Err(failed("put"))
            }
        }
    }

    fn get(&self, name: &ObjectName) -> Result<Arc<dyn ReadableFile>> {
        let (inner, trouble) = self.request(Request::Get);
        match trouble {
            None => inner.get(name),
            Some(Trouble::Repeated) => inner.get(name).and_then(|_| inner.get(name)),
            Some(Trouble::Truncated) => Ok(Arc::new(Half(inner.get(name)?))),
            Some(_) => Err(failed("get")),
        }
    }

    fn list(&self) -> Result<Vec<Stored>> {
        let (inner, trouble) = self.request(Request::List);
        match trouble {
            None | Some(Trouble::Repeated) => {
                let list = inner.list()?;
                self.state.lock().last_list = list.clone();
                Ok(list)
            }
            Some(Trouble::Stale) => Ok(self.state.lock().last_list.clone()),
            Some(_) => Err(failed("list")),
        }
    }

    fn list_is_complete(&self) -> bool {
        !self.stale
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        let (inner, trouble) = self.request(Request::Delete);
        match trouble {
            None => inner.delete(name),
            Some(Trouble::Lost) => {
                inner.delete(name)?;
                Err(failed("delete, done"))
            }
            Some(Trouble::Repeated) => inner.delete(name).and_then(|()| inner.delete(name)),
            Some(_) => Err(failed("delete")),
        }
    }

    fn local_path(&self, name: &ObjectName) -> Option<(&Arc<dyn Fs>, PathBuf)> {
        let _ = name;
        None // an object store: everything is fetched
    }
}

/// The first half of an object.
struct Half(Arc<dyn ReadableFile>);

impl ReadableFile for Half {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        match offset + len as u64 <= self.0.len() / 2 {
            true => self.0.read_at(offset, len),
            false => Err(Error::corruption("the answer ends early").at(offset)),
        }
    }
}
