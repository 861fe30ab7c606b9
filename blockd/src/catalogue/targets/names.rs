//! iSCSI names: those that targets have, and those that initiators may have. Spec: RFC 3720 3.2.6, RFC 3722.

use super::super::{CatalogueError, DEFAULT_TENANT};

/// The target that is there while there is no other.
pub const DEFAULT_TARGET: &str = "default";

/// Stands for every initiator.
pub const ANY_INITIATOR: &str = "*";

/// Most bytes of an iSCSI name.
pub const ISCSI_NAME_BYTES_MAX: usize = 223;

/// What the iSCSI names of targets begin with.
const AUTHORITY: &str = "iqn.2026-11.io.aljibe:";

/// Most characters of a part of a target's name.
const PART_LEN_MAX: usize = 128;

/// The iSCSI name of the target of that name.
pub(super) fn iqn_of(name: &str) -> String {
    format!("{AUTHORITY}{}", name.replace('/', ":"))
}

/// The name of the target of that iSCSI name.
pub(super) fn target_of(iqn: &str) -> Option<String> {
    let iqn = iqn.to_ascii_lowercase();
    let name = iqn.strip_prefix(AUTHORITY)?;
    // No name has a colon, so that there is one way to read it.
    Some(name.replacen(':', "/", 1))
}

/// Refuses a name that is no part of an iSCSI name.
///
/// # Errors
/// [`CatalogueError::Request`].
pub(super) fn check_target(name: &str) -> Result<(), CatalogueError> {
    let (tenant, own) = name.split_once('/').map_or((None, name), |(tenant, own)| (Some(tenant), own));
    let is_part = |part: &str| {
        let is_character = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
        let begins_well = part.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        begins_well && part.len() <= PART_LEN_MAX && part.bytes().all(is_character)
    };
    let is_good = is_part(own) && tenant.is_none_or(|tenant| is_part(tenant) && tenant != DEFAULT_TENANT);
    if !is_good {
        let detail = format!(
            "{name:?} cannot be a target's name: it and its tenant's are part of its iSCSI name, of a-z 0-9 . - and \
             beginning with a letter or digit"
        );
        return Err(CatalogueError::Request(detail));
    }
    let bytes = iqn_of(name).len();
    if bytes > ISCSI_NAME_BYTES_MAX {
        let detail = format!("target {name} would have an iSCSI name of {bytes} bytes: {ISCSI_NAME_BYTES_MAX} is most");
        return Err(CatalogueError::Request(detail));
    }
    Ok(())
}

/// The name of an initiator as it is compared: their case says nothing.
///
/// # Errors
/// [`CatalogueError::Request`] for what is no iSCSI name.
pub(super) fn initiator(name: &str) -> Result<String, CatalogueError> {
    let lower = name.to_ascii_lowercase();
    if name == ANY_INITIATOR || is_iscsi_name(&lower) {
        return Ok(lower);
    }
    let detail = format!(
        "{name:?} is no initiator's name: write one such as iqn.2004-10.com.example:host, eui. with 16 hexadecimal \
         digits, naa. with 16 or 32, of at most {ISCSI_NAME_BYTES_MAX} bytes; or * for any"
    );
    Err(CatalogueError::Request(detail))
}

fn is_iscsi_name(name: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let Some((kind, rest)) = name.split_once('.') else { return false };
    name.len() <= ISCSI_NAME_BYTES_MAX
        && match kind {
            "iqn" => is_qualified(rest),
            "eui" => rest.len() == 16 && is_hex(rest),
            "naa" => matches!(rest.len(), 16 | 32) && is_hex(rest),
            _ => false,
        }
}

/// Whether it is a month, a dot, and the reversed name of who had that domain then, perhaps with something behind a colon.
fn is_qualified(rest: &str) -> bool {
    let Some((month, authority)) = rest.split_once('.') else { return false };
    let is_number = |text: &str, len: usize| text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_month = month.split_once('-').is_some_and(|(year, month)| is_number(year, 4) && is_number(month, 2));
    let is_character = |byte: u8| byte.is_ascii_alphanumeric() || b".-:_".contains(&byte);
    let begins_well = authority.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    is_month && begins_well && authority.bytes().all(is_character)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P8. No two targets have one iSCSI name, and each name leads back to its target, in whatever case it is written.
    #[test]
    fn a_targets_name_and_its_iscsi_name_tell_each_other() {
        for name in ["db", "acme/db", "a.b-c", "0/0"] {
            check_target(name).unwrap();
            assert_eq!(target_of(&iqn_of(name)).as_deref(), Some(name));
            assert_eq!(target_of(&iqn_of(name).to_uppercase()).as_deref(), Some(name));
        }
        assert_eq!(iqn_of("acme/db"), "iqn.2026-11.io.aljibe:acme:db");
        assert_eq!(target_of("iqn.2004-10.com.example:db"), None);
        let long = "x".repeat(128);
        for name in ["", "/", "a/", "/b", "A", "a_b", "a:b", "-a", ".", "a/b/c", "default/a", &format!("{long}/{long}")]
        {
            assert!(check_target(name).is_err(), "{name}");
        }
        assert!(check_target(&format!("{}/{}", &long[..72], long)).is_ok());
        assert!(check_target(&format!("{}/{}", &long[..73], long)).is_err());
    }

    #[test]
    fn initiators_have_iscsi_names() {
        let longest = format!("iqn.2004-10.com.example:{}", "x".repeat(199));
        for name in [
            "iqn.1993-08.org.debian:01:8a2b9c",
            "iqn.2004-10.com.example",
            "eui.0123456789ABCDEF",
            "naa.52004567BA64678D",
            "naa.62004567BA64678D0123456789ABCDEF",
            "*",
            &longest,
        ] {
            assert_eq!(initiator(name), Ok(name.to_lowercase()));
        }
        for name in [
            "",
            "host",
            "iqn.",
            "iqn.2004.com",
            "iqn.2004-1.com",
            "iqn.2004-10.",
            "iqn.2004-10.a b",
            "iqn.2004-10.a/b",
            "eui.0123",
            "naa.x",
            "**",
            "\u{e9}",
            &format!("{longest}x"),
        ] {
            assert!(initiator(name).is_err(), "{name}");
        }
    }
}
