//! Logging in at one member of etcd: once, with the password as its file has it, and ahead of the token's end.
//!
//! A token is worth its price: etcd hashes the password slowly on purpose, and the login is a write of its own. So a
//! token outlives its connection. It ends when etcd says so (`invalid auth token`): a member was started again, a
//! password was changed, or its time is over. etcd does not tell that time, but shows it: the next token is renewed
//! in the background before it has passed, and requests go on under the old one meanwhile.
//!
//! An etcd whose authentication is not enabled takes no login. Its requests then carry no token, until one is refused for
//! that: so authentication can be turned on, and off again, under nodes that run.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use super::error::{status_error, takes_no_login};
use crate::clock::Instant;
use crate::proto::etcd::AuthenticateRequest;
use crate::proto::etcd::auth_client::AuthClient;
use crate::store::{Refusal, StoreError};

/// How long one login may take. A proposal that etcd has lost with its leader is answered after 7 s only; the next
/// login goes through as soon as there is a new leader.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take where that was too short, time after time: an etcd with many logins before ours hashes them one
/// after the other, and one that is given up and repeated only makes them more.
const LOGIN_TIMEOUT_MAX: Duration = Duration::from_secs(8);
/// How soon after a failed login the next one is tried: renewals come more often than that, and each login costs
/// etcd a slow hash.
const LOGIN_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How long the password's file may take; beyond it the last password is used.
const FILE_TIMEOUT: Duration = Duration::from_millis(500);
/// A token is taken to last so long at least.
const LASTS_MIN: Duration = Duration::from_secs(1);

/// Who logs in.
#[derive(Clone)]
pub struct Login {
    user: String,
    file: PathBuf,
    /// What the file held when it could be read last.
    read_last: Arc<Mutex<String>>,
}

/// What is known of our login at one member.
pub(super) struct Session {
    login: Login,
    state: Mutex<State>,
    /// One login at a time.
    logging_in: tokio::sync::Mutex<()>,
    /// How often we have connected.
    connects: AtomicU32,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// When etcd, whose authentication is not enabled, was last heard under no token.
    open: Option<Instant>,
    /// How long tokens last, as far as etcd has shown.
    lasts: Option<Duration>,
    /// The password of the last token that etcd refused, and how long that one had lasted.
    ended: Option<(String, Duration)>,
    /// The password that was right last.
    right: Option<String>,
    failed: Option<(Instant, StoreError)>,
    /// How many logins in a row had no answer in time.
    timeouts: u32,
}

struct Token {
    value: MetadataValue<Ascii>,
    password: String,
    began: Instant,
    /// When it was last answered: etcd's simple tokens last from there on.
    used: Instant,
    /// How often we had connected by then.
    connects: u32,
}

/// What a token is worth.
enum Standing {
    Good,
    /// Good still, but a new one should be got.
    Due,
    Missing,
}

// === impl Login ===

impl Login {
    /// Who logs in.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Logs in as `user` with the password in `file`, which is read at each login.
    ///
    /// # Errors
    /// The file cannot be read, or is not text.
    pub fn new(user: String, file: PathBuf) -> std::io::Result<Self> {
        let password = read(&file)?;
        Ok(Self { user, file, read_last: Arc::new(Mutex::new(password)) })
    }

    /// The password as the file has it; as it had it last, while it cannot be read.
    async fn password(&self) -> String {
        let file = self.file.clone();
        let reading = tokio::task::spawn_blocking(move || read(&file));
        let fresh = tokio::time::timeout(FILE_TIMEOUT, reading).await;
        let mut last = self.read_last.lock().unwrap_or_else(|e| e.into_inner());
        if let Ok(Ok(Ok(fresh))) = fresh {
            *last = fresh;
        }
        last.clone()
    }
}

/// Editors and `echo` end a file with a line feed; a password does not.
fn read(file: &std::path::Path) -> std::io::Result<String> {
    Ok(std::fs::read_to_string(file)?.trim_end_matches(['\r', '\n']).to_owned())
}

// === impl Token ===

impl Token {
    /// How long it has been lasting. A signed token lasts from its login on, a simple one from its last use.
    fn lasted(&self, now: Instant) -> Duration {
        let is_signed = self.value.to_str().is_ok_and(|v| v.matches('.').count() == 2);
        now.since(if is_signed { self.began } else { self.used })
    }
}

// === impl Session ===

impl Session {
    pub(super) fn new(login: Login) -> Self {
        Self {
            login,
            state: Mutex::default(),
            logging_in: tokio::sync::Mutex::default(),
            connects: AtomicU32::new(0),
        }
    }

    /// A connection to the member is opened.
    pub(super) fn connecting(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    fn connects(&self) -> u32 {
        self.connects.load(Ordering::Relaxed)
    }

    /// The token, if there is one.
    pub(super) fn token(&self) -> Option<MetadataValue<Ascii>> {
        self.state().token.as_ref().map(|t| t.value.clone())
    }

    /// Makes sure that there is a token, and that there will be one.
    pub(super) async fn ready(self: &Arc<Self>, channel: &Channel, now: Instant) -> Result<(), StoreError> {
        match self.standing(now) {
            Standing::Good => Ok(()),
            Standing::Due => {
                self.log_in_meanwhile(channel, now);
                Ok(())
            }
            Standing::Missing => {
                // A refusal stands until a login succeeds, so that nobody waits for a slow hash to hear it again.
                let known = self.state().failed.clone();
                if let Some((_, e @ StoreError::Refused(Refusal::Denied, _))) = known {
                    self.log_in_meanwhile(channel, now);
                    return Err(e);
                }
                // A task of its own: a hash that etcd is at must not be in vain because this request waits no longer.
                let login = tokio::spawn(self.clone().log_in_if_needed(channel.clone(), now));
                login.await.unwrap_or_else(|e| Err(StoreError::Unknown(format!("no login: {e}"))))
            }
        }
    }

    async fn log_in_if_needed(self: Arc<Self>, channel: Channel, now: Instant) -> Result<(), StoreError> {
        let _one = self.logging_in.lock().await;
        if !matches!(self.standing(now), Standing::Missing) {
            return Ok(()); // somebody was faster
        }
        self.log_in(channel, now).await
    }

    /// Logs in beside the requests, unless somebody does already; what fails is tried again for the next of them.
    fn log_in_meanwhile(self: &Arc<Self>, channel: &Channel, now: Instant) {
        let (session, channel) = (self.clone(), channel.clone());
        tokio::spawn(async move {
            let Ok(_one) = session.logging_in.try_lock() else { return };
            let _ = session.log_in(channel, now).await; // kept in the state
        });
    }

    /// A request was answered under our token.
    pub(super) fn worked(&self, now: Instant) {
        let mut state = self.state();
        if let Some(open) = &mut state.open {
            *open = now;
        }
        if let Some(token) = &mut state.token {
            (token.used, token.connects) = (now, self.connects());
        }
    }

    /// Does etcd take no login?
    pub(super) fn is_open(&self) -> bool {
        self.state().open.is_some()
    }

    /// The token of a request that left at `asked` is none any more; or it had none, and needs one.
    pub(super) fn refused(&self, asked: Instant) {
        let mut state = self.state();
        state.open = None;
        // A later login has been there meanwhile.
        let is_newer = |t: &Token| t.began.since(asked) > Duration::ZERO;
        if let Some(token) = state.token.take_if(|t| !is_newer(t)) {
            // A member that was started again has forgotten its tokens, whatever their time, and our connection has ended
            // with it: that teaches nothing. Taken for their time, it would have us log in at nearly every renewal.
            let has_ended = token.connects == self.connects();
            let lasted = token.lasted(asked);
            state.ended = has_ended.then_some((token.password, lasted));
        }
    }

    /// Has nothing been answered under our token, or without one, for so long?
    pub(super) fn is_idle(&self, now: Instant, for_so_long: Duration) -> bool {
        let state = self.state();
        let used = state.token.as_ref().map(|t| t.used).or(state.open);
        used.is_some_and(|used| now.since(used) > for_so_long)
    }

    fn standing(&self, now: Instant) -> Standing {
        let mut state = self.state();
        let lasts = state.lasts.unwrap_or(Duration::MAX);
        match state.token.as_ref().map(|t| t.lasted(now)) {
            None if state.open.is_some() => Standing::Good,
            None => Standing::Missing,
            Some(lasted) if lasted >= lasts => {
                state.token = None;
                Standing::Missing
            }
            Some(lasted) if lasted >= lasts.mul_f64(0.5) => Standing::Due,
            Some(_) => Standing::Good,
        }
    }

    async fn log_in(&self, channel: Channel, now: Instant) -> Result<(), StoreError> {
        if let Some((at, e)) = &self.state().failed
            && now.since(*at) < LOGIN_AGAIN_AFTER
        {
            return Err(e.clone());
        }
        let answer = self.ask(channel, now).await;
        let mut state = self.state();
        match answer {
            Ok(token) => {
                if let Some(token) = &token {
                    state.learn(&token.password);
                    state.right = Some(token.password.clone());
                }
                state.failed = None;
                state.open = token.is_none().then_some(now);
                state.token = token;
                Ok(())
            }
            Err(e) => {
                state.failed = Some((now, e.clone()));
                Err(e)
            }
        }
    }

    /// The file's password first. While it is changed in the file and at etcd, one after the other, the one that was
    /// right last may be so still. `None`: etcd takes no login.
    async fn ask(&self, channel: Channel, now: Instant) -> Result<Option<Token>, StoreError> {
        let password = self.login.password().await;
        let older = self.state().right.clone().filter(|right| *right != password);
        let (password, value) = match self.authenticate(channel.clone(), &password).await {
            Err(StoreError::Refused(Refusal::Denied, why)) => match older {
                Some(older) => {
                    let value = self.authenticate(channel, &older).await?;
                    (older, value)
                }
                None => return Err(StoreError::Refused(Refusal::Denied, why)),
            },
            value => (password, value?),
        };
        let connects = self.connects();
        Ok(value.map(|value| Token { value, password, began: now, used: now, connects }))
    }

    async fn authenticate(
        &self,
        channel: Channel,
        password: &str,
    ) -> Result<Option<MetadataValue<Ascii>>, StoreError> {
        let request = AuthenticateRequest { name: self.login.user.clone(), password: password.to_owned() };
        let mut client = AuthClient::new(channel);
        let timeout = self.state().timeout();
        let answer = tokio::time::timeout(timeout, client.authenticate(request)).await;
        let answer = answer.map_err(|_| {
            self.state().timeouts += 1;
            StoreError::Unknown(format!("no answer to a login within {timeout:?}"))
        })?;
        self.state().timeouts = 0;
        let token = match answer {
            Err(status) if takes_no_login(&status) => return Ok(None),
            answer => answer.map_err(|s| status_error(&s))?.into_inner().token,
        };
        let token = token.parse();
        token.map(Some).map_err(|_| StoreError::Refused(Refusal::NotAStore, "an invalid token".into()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

// === impl State ===

impl State {
    /// How long the next login may take.
    fn timeout(&self) -> Duration {
        LOGIN_TIMEOUT.saturating_mul(2_u32.saturating_pow(self.timeouts)).min(LOGIN_TIMEOUT_MAX)
    }

    /// A token of the same password was refused: it had lasted as long as tokens do.
    fn learn(&mut self, password: &str) {
        if let Some((of, lasted)) = self.ended.take()
            && of == password
        {
            let lasts = self.lasts.unwrap_or(Duration::MAX).min(lasted);
            self.lasts = Some(lasts.max(LASTS_MIN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn session(value: &str) -> Session {
        let (user, read_last) = ("u".into(), Arc::new(Mutex::new("p".into())));
        let session = Session::new(Login { user, file: PathBuf::new(), read_last });
        session.state().token = Some(token(value, at(0)));
        session
    }

    fn token(value: &str, began: Instant) -> Token {
        let value = value.parse().expect("text");
        Token { value, password: "p".into(), began, used: began, connects: 0 }
    }

    fn is_due(session: &Session, now: Instant) -> bool {
        matches!(session.standing(now), Standing::Due)
    }

    #[test]
    fn the_time_of_a_token_is_learnt_and_the_next_one_is_renewed_before_it_has_passed() {
        // A simple token lasts from its last use on, a signed one from its login on.
        for (value, lasts) in [("simple.17", 6_000), ("a.signed.one", 9_000)] {
            let session = session(value);
            session.worked(at(3_000));
            assert!(!is_due(&session, at(3_600_000)), "nothing is known");
            session.refused(at(9_000));
            session.state().learn("p");
            assert_eq!(session.state().lasts, Some(Duration::from_millis(lasts)));
            session.state().token = Some(token(value, at(100_000)));
            assert!(!is_due(&session, at(100_000 + lasts / 2 - 1)));
            assert!(is_due(&session, at(100_000 + lasts / 2)));
            assert!(matches!(session.standing(at(100_000 + lasts)), Standing::Missing));
        }
    }

    #[test]
    fn an_etcd_that_takes_no_login_is_asked_without_a_token_until_it_refuses_that() {
        let session = session("simple.1");
        (session.state().token, session.state().open) = (None, Some(at(1_000)));
        assert!(matches!(session.standing(at(3_600_000)), Standing::Good) && session.is_open());
        assert!(!session.is_idle(at(3_000), Duration::from_secs(2)));
        assert!(session.is_idle(at(3_001), Duration::from_secs(2)));
        session.worked(at(3_001));
        assert!(!session.is_idle(at(5_001), Duration::from_secs(2)));
        session.refused(at(5_000));
        assert!(matches!(session.standing(at(5_000)), Standing::Missing) && !session.is_open());
        assert_eq!(session.state().lasts, None, "there was no token whose time could be learnt");
    }

    #[test]
    fn a_member_that_was_started_again_teaches_nothing() {
        for (connects, lasts) in [(1, None), (0, Some(LASTS_MIN))] {
            let session = session("simple.17");
            session.worked(at(3_000));
            (0..connects).for_each(|_| session.connecting());
            session.refused(at(3_200));
            session.state().learn("p");
            assert_eq!(session.state().lasts, lasts, "{connects} connections since it was used");
        }
    }

    #[test]
    fn a_changed_password_and_a_later_login_teach_nothing() {
        let session = session("simple.1");
        session.refused(at(2_000));
        session.state().learn("another");
        assert_eq!(session.state().lasts, None);
        session.state().token = Some(token("simple.2", at(5_000)));
        session.refused(at(4_000));
        assert!(session.token().is_some(), "the request left under an older token");
    }
}
