//! PEM files, and whether they have changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A larger file is none of ours.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A file that cannot be read or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

/// A certificate and its key, with the authority that signs all those that are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PemFiles {
    /// The authorities.
    pub ca: Option<PathBuf>,
    /// The certificate, with those between it and the authority behind it.
    pub cert: Option<PathBuf>,
    /// The certificate's key.
    pub key: Option<PathBuf>,
}

/// A certificate with its chain, and its key.
pub type OwnCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Tells one content of some files from another, without reading them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<Option<FileMark>>);

/// Device, inode, time of the last change of content or permissions in seconds and nanoseconds, size.
type FileMark = (u64, u64, i64, i64, u64);

// === impl FileError ===

impl FileError {
    /// This is wrong with this file.
    pub fn new(path: &Path, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), what: what.into() }
    }
}

// === impl PemFiles ===

impl PemFiles {
    /// All files that are named.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.ca, &self.cert, &self.key].into_iter().flatten()
    }

    /// The authorities.
    ///
    /// # Errors
    /// None is named, or the file has none.
    pub fn roots(&self) -> Result<Arc<RootCertStore>, FileError> {
        let path = named(&self.ca, "no file with the authorities is named")?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            let unusable =
                |e| FileError::new(path, format!("holds a certificate that cannot be an authority: {e}"));
            roots.add(certificate).map_err(unusable)?;
        }
        Ok(Arc::new(roots))
    }

    /// The certificate and its key; `None`: neither is named.
    ///
    /// # Errors
    /// Only one of them is named, or a file does not hold it.
    pub fn identity(&self) -> Result<Option<OwnCertificate>, FileError> {
        let (cert, key) = match (&self.cert, &self.key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(alone), None) => {
                return Err(FileError::new(alone, "is of no use without its key, which is not named"));
            }
            (None, Some(alone)) => {
                return Err(FileError::new(
                    alone,
                    "is of no use without its certificate, which is not named",
                ));
            }
        };
        let bytes = read(key)?;
        let parsed = PrivateKeyDer::from_pem_slice(&bytes);
        let parsed = parsed.map_err(|e| FileError::new(key, format!("holds no private key in PEM: {e}")))?;
        Ok(Some((certificates(cert)?, parsed)))
    }
}

// === impl Fingerprint ===

impl Fingerprint {
    /// Of these files, as they are now. Follows links: Kubernetes changes a secret by turning one.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) -> Self {
        let one = |path: &PathBuf| {
            let m = fs::metadata(path).ok()?;
            Some((m.dev(), m.ino(), m.ctime(), m.ctime_nsec(), m.size()))
        };
        Self(paths.into_iter().map(one).collect())
    }
}

/// Calls `reload` whenever one of these files is not as `seen`, until it succeeds. Whoever writes them may be in the middle of
/// it; what is wrong is handed to `say`, once for each text.
pub async fn follow_changes(
    paths: Vec<PathBuf>,
    mut seen: Fingerprint,
    reload: impl Fn() -> Result<(), FileError> + Clone + Send + 'static,
    say: impl Fn(Result<(), &str>),
) {
    if paths.is_empty() {
        return std::future::pending().await;
    }
    let mut said = String::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // After a failure in any case: the files may be as they were before, and what is in force may not.
        let before = said.is_empty().then(|| seen.clone());
        let (paths, reload) = (paths.clone(), reload.clone());
        // On a thread of its own: the disk may hang, and then this waits.
        let look = tokio::task::spawn_blocking(move || {
            let now = Fingerprint::of(&paths);
            (before.as_ref() != Some(&now)).then(|| (now, reload().map_err(|e| e.to_string())))
        });
        let outcome = match look.await {
            Ok(None) => continue,
            Ok(Some((now, Ok(())))) => {
                seen = now;
                Ok(())
            }
            Ok(Some((_, Err(why)))) => Err(why),
            Err(e) => Err(e.to_string()), // it has panicked
        };
        match outcome {
            Ok(()) => {
                said.clear();
                say(Ok(()));
            }
            Err(why) if why == said => {}
            Err(why) => {
                say(Err(&why));
                said = why;
            }
        }
    }
}

/// What a small file holds.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |e: std::io::Error| FileError::new(path, format!("cannot be read: {e}"));
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > BYTES_MAX {
        return Err(FileError::new(path, format!("has {size} bytes; {BYTES_MAX} are the maximum")));
    }
    fs::read(path).map_err(failed)
}

fn named<'p>(path: &'p Option<PathBuf>, otherwise: &str) -> Result<&'p Path, FileError> {
    path.as_deref().ok_or_else(|| FileError::new(Path::new("(none)"), otherwise))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(path)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match parsed {
        Ok(all) if all.is_empty() => Err(FileError::new(path, "holds no certificate in PEM")),
        Ok(all) => Ok(all),
        Err(e) => Err(FileError::new(path, format!("is not PEM: {e}"))),
    }
}
