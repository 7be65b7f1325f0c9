//! `metad explain`.

use super::{Failure, output};
use crate::api::explain;
use crate::election::exit::Exit;

/// Explains a check (code or name), a reason or an exit code; without one, lists them.
pub(super) fn explain(code: Option<&str>) -> Result<i32, Failure> {
    let Some(code) = code else { return output::print(&explain::list()).map(|()| 0) };
    let unknown = || {
        let message =
            format!("{code:?} is no check, no reason and no exit code\nfix: metad explain lists them all");
        Failure::new(Exit::Usage.code(), message)
    };
    output::print(&explain::of(code).ok_or_else(unknown)?).map(|()| 0)
}
