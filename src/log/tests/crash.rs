//! Crashes, damage, full and failing disks.

use super::{
    super::{
        AppendError,
        testing::{Fault, Unsynced},
    },
    *,
};
use std::io::ErrorKind;
