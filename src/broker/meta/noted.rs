//! Why redb's file failed.
//!
//! redb refuses everything after the first error of its file. Whether the file may be opened again
//! depends on the error: what found no space may be tried again, what could not be synced may not.

use crate::disk::{FileCall, Watch};
use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// What went wrong, shared between the file and its owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_full: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Noted {
    /// Whether a write found no space since the last call.
    pub(super) fn take_full(&self) -> bool {
        self.0.is_full.swap(false, Ordering::AcqRel)
    }

    /// The first failure that is for good.
    pub(super) fn failure(&self) -> Option<String> {
        self.0.failure.lock().expect("no holder panics").clone()
    }

    /// Takes note of a failure that is for good, and logs it if it is the first.
    pub(super) fn fail(&self, cause: &str) {
        let mut failure = self.0.failure.lock().expect("no holder panics");
        if failure.is_none() {
            tracing::error!(cause, "broker.redb takes no writes until restart");
            *failure = Some(cause.to_owned());
        }
    }
}

impl Watch for Noted {
    fn failed(&self, call: FileCall, error: &io::Error) {
        match (call, error.kind()) {
            // A write changes nothing that was durable, so one without space may be tried again.
            // A sync never is, not even without space: the kernel may have dropped the pages.
            (FileCall::Write, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                self.0.is_full.store(true, Ordering::Release);
            }
            _ => self.fail(&error.to_string()),
        }
    }
}
