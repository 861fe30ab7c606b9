//! Who may enter a target: initiators by their names, each with CHAP or without. Secrets are shown to nobody.

use super::super::record::Record;
use super::super::trial::is_trial;
use super::super::{Catalogue, CatalogueError};
use super::records::InitiatorRecord;
use super::{Target, names};
use std::fmt;
use std::ops::RangeInclusive;

/// Most initiators of a target.
pub const INITIATORS_MAX: usize = 256;

/// Bytes of a CHAP secret: 96 bits at least, RFC 7143 9.2.1.
pub const CHAP_SECRET_BYTES: RangeInclusive<usize> = 12..=255;

/// Most bytes of a CHAP user's name.
pub const CHAP_USER_BYTES_MAX: usize = 255;

/// An initiator that may enter a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initiator {
    /// Its iSCSI name, or `*` for any.
    pub name: String,
    /// As whom it says who it is by CHAP, when it must.
    pub chap_user: Option<String>,
    /// As whom the target says so, when it must.
    pub mutual_user: Option<String>,
}

/// What an initiator says who it is by, and perhaps the target.
#[derive(Clone, PartialEq, Eq)]
pub struct ChapSecrets {
    /// As whom.
    pub user: String,
    /// By this.
    pub secret: Vec<u8>,
    /// As whom the target does, and by what, when it must.
    pub mutual: Option<(String, Vec<u8>)>,
}

/// Names alone: secrets are in no log.
impl fmt::Debug for ChapSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mutual = self.mutual.as_ref().map(|(user, _)| user);
        f.debug_struct("ChapSecrets").field("user", &self.user).field("mutual", &mutual).finish_non_exhaustive()
    }
}

impl ChapSecrets {
    fn check(&self) -> Result<(), CatalogueError> {
        let refused = |detail: String| Err(CatalogueError::Request(detail));
        let mutual = self.mutual.as_ref().map(|(user, secret)| (user, secret));
        for (user, secret) in std::iter::once((&self.user, &self.secret)).chain(mutual) {
            let is_named = (1..=CHAP_USER_BYTES_MAX).contains(&user.len()) && !user.chars().any(char::is_control);
            if !is_named {
                return refused(format!("a CHAP user's name has 1 to {CHAP_USER_BYTES_MAX} bytes"));
            }
            if !CHAP_SECRET_BYTES.contains(&secret.len()) {
                let (min, max) = CHAP_SECRET_BYTES.into_inner();
                return refused(format!("a CHAP secret has {min} to {max} bytes, this one has {}", secret.len()));
            }
        }
        if mutual.is_some_and(|(_, secret)| *secret == self.secret) {
            return refused("the target's CHAP secret must be another one than the initiator's".to_owned());
        }
        Ok(())
    }
}

impl Initiator {
    pub(super) fn of(record: &InitiatorRecord) -> Self {
        let chap = record.chap.as_ref();
        Self {
            name: record.name.clone(),
            chap_user: chap.map(|chap| chap.user.clone()),
            mutual_user: chap.and_then(|chap| chap.mutual.as_ref()).map(|mutual| mutual.user.clone()),
        }
    }
}

impl Catalogue {
    /// Lets an initiator enter a target, or any by [`super::ANY_INITIATOR`], in place of what was said of it before.
    ///
    /// # Errors
    /// [`CatalogueError::NoTarget`], [`CatalogueError::Suspended`]; [`CatalogueError::Request`] for what is no iSCSI name, or for a secret
    /// that is too short or the same both ways; [`CatalogueError::QuotaExceeded`] beyond [`INITIATORS_MAX`]; or the system volume's.
    pub async fn allow_initiator(
        &self,
        target: &str,
        initiator: &str,
        chap: Option<ChapSecrets>,
    ) -> Result<Target, CatalogueError> {
        let name = names::initiator(initiator)?;
        chap.as_ref().map_or(Ok(()), ChapSecrets::check)?;
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let record = self.target_record(target)?;
        let known = self.refuse_many_initiators(target, &name)?;
        let wanted = InitiatorRecord { id: 0, target: record.id, name, chap: chap.map(Into::into) };
        if is_trial() {
            let mut would_be = self.show_target(target)?;
            would_be.initiators.retain(|initiator| initiator.name != wanted.name);
            would_be.initiators.push(Initiator::of(&wanted));
            would_be.initiators.sort_by(|a, b| a.name.cmp(&b.name));
            return Ok(would_be);
        }
        let id = match known {
            Some(id) => id,
            None => book.take_ids(1).await?,
        };
        let wanted = InitiatorRecord { id, ..wanted };
        if let Err(error) = book.put(&Record::Initiator(wanted.clone())).await {
            // What was said before may be what is there; of a new one nothing is to be.
            if known.is_none()
                && let Err(error) = book.remove(id, 1).await
            {
                tracing::warn!(target, %error, "an initiator that was refused may be let in after a restart");
            }
            return Err(error);
        }
        let (name, has_chap) = (wanted.name.clone(), wanted.chap.is_some());
        if let Some(kept) = self.write().targets.named.get_mut(target) {
            kept.initiators.insert(name.clone(), wanted);
        }
        self.tell_targets();
        tracing::info!(target, initiator = name, has_chap, "an initiator may enter a target");
        self.show_target(target)
    }

    /// Lets an initiator enter a target no more, unless any may. Those who are in it are to be looked at again by who serves them.
    ///
    /// # Errors
    /// [`CatalogueError::NoTarget`], [`CatalogueError::NoInitiator`], [`CatalogueError::Suspended`]; or the system volume's: it may be let in
    /// after a restart then.
    pub async fn deny_initiator(&self, target: &str, initiator: &str) -> Result<Target, CatalogueError> {
        let name = names::initiator(initiator)?;
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        self.target_record(target)?;
        let known = self.read().targets.named(target)?.initiators.get(&name).map(|record| record.id);
        let missing = || CatalogueError::NoInitiator { target: target.to_owned(), initiator: name.clone() };
        let id = known.ok_or_else(missing)?;
        if is_trial() {
            let mut would_be = self.show_target(target)?;
            would_be.initiators.retain(|initiator| initiator.name != name);
            return Ok(would_be);
        }
        book.remove(id, 1).await?;
        if let Some(kept) = self.write().targets.named.get_mut(target) {
            kept.initiators.remove(&name);
        }
        self.tell_targets();
        tracing::info!(target, initiator = name, "an initiator may not enter a target any more");
        self.show_target(target)
    }

    /// The id of what was said of an initiator, when something was.
    fn refuse_many_initiators(&self, target: &str, name: &str) -> Result<Option<u64>, CatalogueError> {
        let shelf = self.read();
        let kept = shelf.targets.named(target)?;
        let known = kept.initiators.get(name).map(|record| record.id);
        if known.is_none() && kept.initiators.len() >= INITIATORS_MAX {
            let detail = format!("target {target} has {INITIATORS_MAX} initiators, and no more");
            return Err(CatalogueError::Request(detail));
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chap(user: &str, secret: &str, mutual: Option<(&str, &str)>) -> ChapSecrets {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let mutual = mutual.map(|(user, secret)| (user.to_owned(), bytes(secret)));
        ChapSecrets { user: user.to_owned(), secret: bytes(secret), mutual }
    }

    /// P8. A secret is long enough, and another one each way; it is in no log.
    #[test]
    fn a_secret_is_long_enough_and_another_one_each_way() {
        let (good, other) = ("123456789012", "abcdefghijkl");
        let longest = "x".repeat(255);
        chap("u", good, None).check().unwrap();
        chap(&longest, &longest, Some((&longest, good))).check().unwrap();
        for bad in [
            chap("", good, None),
            chap("u\n", good, None),
            chap(&format!("{longest}x"), good, None),
            chap("u", "12345678901", None),
            chap("u", &format!("{longest}x"), None),
            chap("u", good, Some(("v", good))),
            chap("u", good, Some(("", other))),
            chap("u", good, Some(("v", "short"))),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        let shown = format!("{:?}", chap("u", good, Some(("v", other))));
        assert!(!shown.contains(good) && !shown.contains(other) && shown.contains("\"v\""), "{shown}");
    }
}
