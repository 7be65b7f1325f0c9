//! The gate of one listener: what a request takes, and whether its caller has it.

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderMap, header};

use super::{Access, AccessRole, Caller, Denied};
use crate::clock::Clock;
use crate::limits::{Guard, Remote};

/// Lets through what may be done, and tells of what may not.
#[derive(Clone)]
pub struct Gate {
    access: Access,
    guard: Arc<Guard>,
    clock: Arc<dyn Clock>,
}

// === impl Gate ===

impl Gate {
    /// In front of what is served behind this guard.
    pub fn new(access: Access, guard: Arc<Guard>, clock: Arc<dyn Clock>) -> Self {
        Self { access, guard, clock }
    }

    /// Who calls; `None`: `path` takes no role, and nobody has looked.
    ///
    /// # Errors
    /// Nobody knows who it is, or it may not do that.
    pub fn admit(
        &self,
        path: &str,
        takes: Option<AccessRole>,
        peer: Option<&Arc<Remote>>,
        headers: &HeaderMap,
    ) -> Result<Option<Caller>, Denied> {
        let Some(role) = takes else {
            return self.guard.allows_costly(path).then_some(None).ok_or(Denied::Overloaded);
        };
        let token = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let unseen =
            || Denied::Unauthenticated("internal error: the connection has no peer information".to_owned());
        let caller = peer.ok_or_else(unseen).and_then(|peer| self.access.caller(peer, token));
        let checked = caller.and_then(|caller| caller.check(role).map(|()| caller));
        match checked {
            Ok(_) if !self.guard.allows_costly(path) => Err(Denied::Overloaded),
            Ok(caller) => Ok(Some(caller.tells(self, path))),
            Err(denied) => {
                self.tell(path, &denied);
                Err(denied)
            }
        }
    }

    /// Tells that this was refused.
    pub(super) fn tell(&self, path: &str, denied: &Denied) {
        self.guard.refusals().tell(self.clock.now(), path, &denied.to_string());
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("access", &self.access).finish_non_exhaustive()
    }
}
