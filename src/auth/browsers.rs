use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatecast_storage::TokenHash;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{PlainToken, RandomSourceFailed, hash_of};

/// How long a browser stays signed in.
const SIGNED_IN_FOR: Duration = Duration::from_secs(12 * 3600);
/// Browsers signed in at once; one more signs out the oldest.
const BROWSERS_MAX: usize = 64;
/// The cookie. By its prefix browsers take it over TLS only, from this host only, for all paths only (RFC 6265bis § 4.1.3).
const COOKIE_NAME: &str = "__Host-gatecast";

/// Browsers that have exchanged the admin token for a cookie. Kept in memory, by hash: a restart signs everybody out.
#[derive(Default)]
pub struct Browsers {
    signed_in: Mutex<HashMap<TokenHash, SignedIn>>,
}

/// A browser's standing, for what outlives the call that it was found with.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Cancelled when it signs out.
    pub ended: CancellationToken,
    /// When it has to sign in again.
    pub until: Instant,
}

impl Browsers {
    /// Signs a browser in: the `Set-Cookie` to answer with.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub fn sign_in(&self) -> Result<String, RandomSourceFailed> {
        let token = PlainToken::random()?;
        let now = Instant::now();
        let mut all = self.signed_in();
        all.retain(|_, known| now < known.until);
        if all.len() >= BROWSERS_MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, known)| known.until).map(|(hash, _)| *hash)
        {
            end(all.remove(&oldest));
        }
        all.insert(token.hash(), SignedIn { ended: CancellationToken::new(), until: now + SIGNED_IN_FOR });
        Ok(cookie(token.expose(), SIGNED_IN_FOR))
    }

    /// Signs the browser out that shows these cookies: the `Set-Cookie` to answer with.
    pub fn sign_out<'c>(&self, cookies: impl Iterator<Item = &'c str>) -> String {
        for hash in presented(cookies) {
            end(self.signed_in().remove(&hash));
        }
        cookie("", Duration::ZERO)
    }

    /// The browser that shows these cookies, if it is signed in.
    pub fn find<'c>(&self, cookies: impl Iterator<Item = &'c str>) -> Option<SignedIn> {
        let all = self.signed_in();
        let now = Instant::now();
        presented(cookies).filter_map(|hash| all.get(&hash)).find(|known| now < known.until).cloned()
    }

    fn signed_in(&self) -> MutexGuard<'_, HashMap<TokenHash, SignedIn>> {
        // Nothing that runs under the lock panics half way.
        self.signed_in.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(known: Option<SignedIn>) {
    if let Some(known) = known {
        known.ended.cancel();
    }
}

/// What cookie headers show under our name.
fn presented<'c>(cookies: impl Iterator<Item = &'c str>) -> impl Iterator<Item = TokenHash> {
    let pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| hash_of(value))
}

fn cookie(value: &str, age: Duration) -> String {
    format!("{COOKIE_NAME}={value}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Strict", age.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(set_cookie: &str) -> String {
        format!("other=1; {}", set_cookie.split(';').next().unwrap())
    }

    fn find(browsers: &Browsers, cookie: &str) -> bool {
        browsers.find([cookie].into_iter()).is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn a_browser_is_signed_in_until_its_time_is_over_or_it_signs_out() {
        let browsers = Browsers::default();
        let (one, other) = (shown(&browsers.sign_in().unwrap()), shown(&browsers.sign_in().unwrap()));
        assert!(find(&browsers, &one) && find(&browsers, &other) && !find(&browsers, "__Host-gatecast=guessed"));
        let signed_in = browsers.find([one.as_str()].into_iter()).unwrap();
        assert!(browsers.sign_out([one.as_str()].into_iter()).contains("Max-Age=0"));
        assert!(signed_in.ended.is_cancelled() && !find(&browsers, &one) && find(&browsers, &other));
        tokio::time::advance(SIGNED_IN_FOR).await;
        assert!(!find(&browsers, &other));
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_only_so_many_and_the_oldest_goes() {
        let browsers = Browsers::default();
        let mut cookies = Vec::new();
        for _ in 0..=BROWSERS_MAX {
            cookies.push(shown(&browsers.sign_in().unwrap()));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let found: Vec<_> = cookies.iter().map(|cookie| find(&browsers, cookie)).collect();
        assert!(!found[0] && found[1..].iter().all(|found| *found));
    }

    #[test]
    fn the_cookie_is_for_tls_this_host_and_no_script() {
        let cookie = Browsers::default().sign_in();
        // Instants need no runtime.
        let cookie = cookie.unwrap();
        for part in ["__Host-", "; Path=/;", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"] {
            assert!(cookie.contains(part), "{cookie}");
        }
    }
}
