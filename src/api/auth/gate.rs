//! The gate of one listener: what a request takes, and whether its caller has it.

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderValue, Request, header};

use super::{Access, AccessRole, Caller, Denied};
use crate::clock::Clock;
use crate::limits::{Guard, Newcomer, Remote};

/// Which role a request for a path takes; `None`: none.
type Rule = fn(&str) -> Option<AccessRole>;

/// Lets through what may be done, and tells of what may not.
pub struct Gate {
    takes: Rule,
    access: Access,
    guard: Arc<Guard>,
    clock: Arc<dyn Clock>,
}

// === impl Gate ===

impl Gate {
    /// In front of what is served behind this guard, where requests take what `takes` says.
    pub fn new(takes: Rule, access: Access, guard: Arc<Guard>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { takes, access, guard, clock })
    }

    /// Who calls; `None`: this takes no role, and nobody has looked.
    ///
    /// # Errors
    /// Nobody knows who it is, or it may not do that.
    pub fn admit<B>(self: &Arc<Self>, request: &Request<B>) -> Result<Option<Caller>, Denied> {
        let path = request.uri().path();
        let caller = match (self.takes)(path).map(|role| self.identify(request, role)) {
            Some(Err(denied)) => {
                self.tell(path, &denied);
                return Err(denied);
            }
            Some(Ok(caller)) => {
                if let Some(newcomer) = request.extensions().get::<Newcomer>() {
                    newcomer.became_known();
                }
                Some(caller.tells(self, request.uri()))
            }
            None => None,
        };
        self.guard.allows_costly(path).then_some(caller).ok_or(Denied::Overloaded)
    }

    fn identify<B>(&self, request: &Request<B>, role: AccessRole) -> Result<Caller, Denied> {
        let peer = request.extensions().get::<Arc<Remote>>().ok_or_else(|| {
            Denied::Unauthenticated("internal error: the connection has no peer information".to_owned())
        })?;
        let token = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let caller = self.access.caller(peer, token)?;
        caller.check(role)?;
        Ok(caller)
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
