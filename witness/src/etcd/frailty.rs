//! Whether the cluster bears the loss of one more member: looked at beside the questions, since a member that is lost is slow
//! to say so.
//!
//! A member counts when it says of itself, at whichever address, that it is of this cluster and knows a leader. A site, or the
//! link to it, is taken to take one member with it.

use super::endpoint::{Endpoint, HostPort};
use super::wire::{self, Member, MemberList, StatusAnswer};
use super::{ENDPOINTS_MAX, Shared};
use replication::times::WITNESS_PATIENCE;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How often members are looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// How long a member may take to tell its state, and how often it is asked in one look: a change of the verdict costs the group
/// an epoch, so one late answer does not make it.
const STATUS_DURATION_MAX: Duration = Duration::from_millis(500);
const STATUS_TRIES: usize = 2;

/// Members that the cluster tells of at addresses that are not among the configured ones.
type Others = BTreeMap<HostPort, Arc<Endpoint>>;

/// Looks again and again, until aborted.
pub(super) async fn look_for_ever(shared: Arc<Shared>) {
    let mut others = Others::new();
    loop {
        let is_frail = look(&shared, &mut others).await;
        let before = shared.is_frail.send_replace(Some(is_frail));
        match (before, is_frail) {
            (Some(true), true) | (Some(false) | None, false) => {}
            (_, true) => tracing::warn!("the witness would lose its quorum with one more member"),
            (_, false) => tracing::info!("the witness bears the loss of a member again"),
        }
        sleep(LOOK_PERIOD).await;
    }
}

async fn look(shared: &Shared, others: &mut Others) -> bool {
    let by = Instant::now() + WITNESS_PATIENCE;
    let Ok(list) = shared.ask_any::<MemberList>(wire::MEMBER_LIST, wire::nothing(), by).await else {
        // What does not even tell its members is not known to bear a loss.
        others.clear();
        return true;
    };
    note_others(shared, &list.members, others);
    let mut looks = JoinSet::new();
    for endpoint in shared.endpoints.iter().chain(others.values()) {
        looks.spawn(well_member(Arc::clone(endpoint)));
    }
    let well = looks.join_all().await.into_iter().flatten().collect();
    is_frail(&list.members, &well)
}

/// The member at an address, when it is well.
async fn well_member(endpoint: Arc<Endpoint>) -> Option<u64> {
    for _ in 0..STATUS_TRIES {
        let by = Instant::now() + STATUS_DURATION_MAX;
        if let Ok(status) = endpoint.ask::<StatusAnswer>(wire::STATUS, wire::nothing(), by).await {
            return Some(status.header.member_id);
        }
    }
    None
}

/// Whether the loss of one of the members that are well would leave less than a quorum of those that vote.
fn is_frail(members: &[Member], well: &BTreeSet<u64>) -> bool {
    let voters: BTreeSet<u64> = members.iter().filter(|member| !member.is_learner).map(|member| member.id).collect();
    let quorum = voters.len() / 2 + 1;
    voters.intersection(well).count() <= quorum
}

/// Keeps an endpoint for each address that voters tell of, with the connections of those that it had.
fn note_others(shared: &Shared, members: &[Member], others: &mut Others) {
    let is_tls = shared.tls.is_some();
    let told = members.iter().filter(|member| !member.is_learner).flat_map(|member| &member.urls);
    let told: BTreeSet<HostPort> = told.filter_map(|url| address_of(url, is_tls)).take(ENDPOINTS_MAX).collect();
    others.retain(|at, _| told.contains(at));
    for at in told {
        if shared.endpoints.iter().all(|endpoint| *endpoint.at() != at) {
            let tls = shared.tls.clone().map(|tls| tls.0);
            let made = || Arc::new(Endpoint::new(at.clone(), tls, Arc::clone(&shared.pin)));
            others.entry(at.clone()).or_insert_with(made);
        }
    }
}

/// Where a member says that it is; nothing when that is in clear and TLS is wanted, or the reverse.
fn address_of(url: &str, is_tls: bool) -> Option<HostPort> {
    let uri: hyper::Uri = url.parse().ok()?;
    let scheme = if is_tls { "https" } else { "http" };
    let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
    (uri.scheme_str() == Some(scheme)).then_some(HostPort { host, port: uri.port_u16()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(voters: u64, learners: u64) -> Vec<Member> {
        let member = |id| Member { id, urls: Vec::new(), is_learner: id > voters };
        (1..=voters + learners).map(member).collect()
    }

    /// P4. A witness is frail while the loss of one more voter would leave less than a quorum.
    #[test]
    fn a_quorum_is_of_those_that_vote() {
        let frail = |members: &[Member], well: u64| is_frail(members, &(1..=well).collect());
        assert!(frail(&members(1, 0), 1));
        assert!(frail(&members(2, 0), 2));
        assert!(!frail(&members(3, 0), 3) && frail(&members(3, 0), 2) && frail(&members(3, 0), 0));
        assert!(frail(&members(4, 0), 3) && !frail(&members(4, 0), 4));
        assert!(!frail(&members(5, 0), 4) && frail(&members(5, 0), 3));
        // Learners, and members of which nobody knows, do not count.
        assert!(frail(&members(2, 3), 5));
        assert!(frail(&members(3, 0), 2) && is_frail(&members(3, 0), &[1, 2, 77].into()));
        assert!(frail(&[], 3));
    }

    /// P4. Nothing is said in clear where TLS is wanted.
    #[test]
    fn a_member_in_clear_is_not_looked_at_where_tls_is_wanted() {
        let at = |host: &str| Some(HostPort { host: host.to_owned(), port: 2379 });
        assert_eq!(address_of("http://a:2379", false), at("a"));
        assert_eq!(address_of("https://[::1]:2379", true), at("::1"));
        for (url, is_tls) in
            [("http://a:2379", true), ("https://a:2379", false), ("unix://a:1", false), ("http://a", false)]
        {
            assert_eq!(address_of(url, is_tls), None, "{url}");
        }
    }
}
