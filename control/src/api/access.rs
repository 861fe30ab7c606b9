//! Who may do what: the one table of routes and roles, which the guard reads. A route that is not in it is refused.

use crate::token::Role::{self, Auditor, Billing, Operator, ProviderAdmin, TenantAdmin, TenantUser};

/// Whom a route is for, besides their roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Without a token, too.
    Anyone,
    /// Whoever has a token, each for its tenant.
    Tenant,
    /// Those alone whose token is for all tenants.
    Provider,
}

use Scope::{Anyone, Provider, Tenant};

/// A method and a route, and who may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    pub(super) scope: Scope,
    pub(super) roles: &'static [Role],
}

const EVERYONE: &[Role] = &[ProviderAdmin, Operator, Billing, TenantAdmin, TenantUser, Auditor];
const USERS: &[Role] = &[ProviderAdmin, Operator, TenantAdmin, TenantUser];
const WATCHERS: &[Role] = &[ProviderAdmin, Operator, Billing, Auditor];
const OPERATORS: &[Role] = &[ProviderAdmin, Operator];
/// Who makes bills.
const BILLERS: &[Role] = &[ProviderAdmin, Billing];
/// Who sees a tenant's.
const BILLED: &[Role] = &[ProviderAdmin, Billing, TenantAdmin, Auditor];
const CARD_READERS: &[Role] = &[ProviderAdmin, Billing, Auditor];
// Who gives tokens away says who enters exports and targets, too.
const TOKEN_GIVERS: &[Role] = &[ProviderAdmin, TenantAdmin];
const TOKEN_READERS: &[Role] = &[ProviderAdmin, TenantAdmin, Auditor];

const fn rule(method: &'static str, route: &'static str, scope: Scope, roles: &'static [Role]) -> Rule {
    Rule { method, route, scope, roles }
}

pub(super) const TABLE: &[Rule] = &[
    rule("GET", "/v1/health", Anyone, EVERYONE),
    rule("GET", "/v1/ready", Provider, WATCHERS),
    rule("GET", "/v1/openapi.json", Tenant, EVERYONE),
    rule("GET", "/metrics", Provider, WATCHERS),
    rule("GET", "/v1/pool", Provider, WATCHERS),
    rule("GET", "/v1/pool/scrub", Provider, WATCHERS),
    rule("POST", "/v1/pool/scrub", Provider, OPERATORS),
    rule("GET", "/v1/volumes", Tenant, EVERYONE),
    rule("POST", "/v1/volumes", Tenant, USERS),
    rule("GET", "/v1/volumes/{name}", Tenant, EVERYONE),
    rule("DELETE", "/v1/volumes/{name}", Tenant, USERS),
    rule("POST", "/v1/volumes/{name}/resize", Tenant, USERS),
    rule("POST", "/v1/volumes/{name}/history", Tenant, USERS),
    rule("POST", "/v1/volumes/{name}/qos", Provider, OPERATORS),
    rule("POST", "/v1/volumes/{name}/clone", Tenant, USERS),
    rule("POST", "/v1/volumes/{name}/rollback", Tenant, USERS),
    rule("GET", "/v1/mirrors", Tenant, EVERYONE),
    rule("GET", "/v1/volumes/{name}/mirror", Tenant, EVERYONE),
    rule("POST", "/v1/volumes/{name}/mirror", Provider, OPERATORS),
    rule("DELETE", "/v1/volumes/{name}/mirror", Provider, OPERATORS),
    rule("POST", "/v1/volumes/{name}/move", Provider, OPERATORS),
    rule("POST", "/v1/volumes/{name}/failover", Provider, OPERATORS),
    rule("GET", "/v1/snapshots", Tenant, EVERYONE),
    rule("POST", "/v1/snapshots", Tenant, USERS),
    rule("GET", "/v1/snapshots/{name}", Tenant, EVERYONE),
    rule("DELETE", "/v1/snapshots/{name}", Tenant, USERS),
    rule("POST", "/v1/snapshots/{name}/clone", Tenant, USERS),
    rule("GET", "/v1/snapshots/{name}/diff", Tenant, USERS),
    rule("POST", "/v1/snapshots/reclaim", Tenant, USERS),
    rule("GET", "/v1/images", Tenant, EVERYONE),
    rule("POST", "/v1/images", Tenant, USERS),
    rule("GET", "/v1/images/{name}", Tenant, EVERYONE),
    rule("DELETE", "/v1/images/{name}", Tenant, USERS),
    rule("POST", "/v1/images/{name}/mark", Tenant, USERS),
    rule("POST", "/v1/images/{name}/seal", Tenant, USERS),
    rule("POST", "/v1/images/{name}/share", Provider, OPERATORS),
    rule("GET", "/v1/tenants", Provider, WATCHERS),
    rule("POST", "/v1/tenants", Provider, &[ProviderAdmin]),
    rule("GET", "/v1/tenants/{name}", Tenant, EVERYONE),
    rule("DELETE", "/v1/tenants/{name}", Provider, &[ProviderAdmin]),
    rule("POST", "/v1/tenants/{name}/quota", Provider, &[ProviderAdmin]),
    rule("POST", "/v1/tenants/{name}/qos", Provider, &[ProviderAdmin]),
    rule("PUT", "/v1/tenants/{name}/access", Tenant, TOKEN_GIVERS),
    rule("POST", "/v1/tenants/{name}/suspend", Provider, OPERATORS),
    rule("POST", "/v1/tenants/{name}/resume", Provider, OPERATORS),
    rule("GET", "/v1/tokens", Tenant, TOKEN_READERS),
    rule("POST", "/v1/tokens", Tenant, TOKEN_GIVERS),
    rule("DELETE", "/v1/tokens/{id}", Tenant, TOKEN_GIVERS),
    rule("GET", "/v1/audit", Tenant, &[ProviderAdmin, Auditor]),
    rule("GET", "/versions", Anyone, EVERYONE),
    rule("GET", "/v1/tenants/{name}/metrics", Tenant, EVERYONE),
    rule("GET", "/v1/operations", Tenant, EVERYONE),
    rule("GET", "/v1/operations/{id}", Tenant, EVERYONE),
    rule("POST", "/v1/operations/{id}/cancel", Tenant, USERS),
    rule("GET", "/v1/classes", Tenant, EVERYONE),
    rule("POST", "/v1/classes", Provider, OPERATORS),
    rule("GET", "/v1/classes/{name}", Tenant, EVERYONE),
    rule("PUT", "/v1/classes/{name}", Provider, OPERATORS),
    rule("DELETE", "/v1/classes/{name}", Provider, OPERATORS),
    rule("PUT", "/v1/volumes/{name}/class", Tenant, USERS),
    rule("GET", "/v1/targets", Tenant, EVERYONE),
    rule("POST", "/v1/targets", Tenant, USERS),
    rule("GET", "/v1/targets/{name}", Tenant, EVERYONE),
    rule("DELETE", "/v1/targets/{name}", Tenant, USERS),
    rule("POST", "/v1/targets/{name}/luns", Tenant, USERS),
    rule("PUT", "/v1/targets/{name}/luns/{lun}", Tenant, USERS),
    rule("DELETE", "/v1/targets/{name}/luns/{lun}", Tenant, USERS),
    rule("PUT", "/v1/targets/{name}/initiators/{initiator}", Tenant, TOKEN_GIVERS),
    rule("DELETE", "/v1/targets/{name}/initiators/{initiator}", Tenant, TOKEN_GIVERS),
    rule("GET", "/v1/rate-cards", Provider, CARD_READERS),
    rule("POST", "/v1/rate-cards", Provider, BILLERS),
    rule("GET", "/v1/rate-cards/{id}", Provider, CARD_READERS),
    rule("DELETE", "/v1/rate-cards/{id}", Provider, BILLERS),
    rule("GET", "/v1/tenants/{name}/billing", Tenant, BILLED),
    rule("PUT", "/v1/tenants/{name}/billing", Provider, BILLERS),
    rule("GET", "/v1/tenants/{name}/invoices", Tenant, BILLED),
    rule("GET", "/v1/tenants/{name}/invoice", Tenant, BILLED),
    rule("POST", "/v1/tenants/{name}/invoice/issue", Provider, BILLERS),
    rule("POST", "/v1/tenants/{name}/invoice/correct", Provider, BILLERS),
    rule("GET", "/v1/tenants/{name}/budget", Tenant, BILLED),
    rule("PUT", "/v1/tenants/{name}/budget", Provider, BILLERS),
    rule("DELETE", "/v1/tenants/{name}/budget", Provider, BILLERS),
    rule("GET", "/v1/tenants/{name}/usage", Tenant, BILLED),
    rule("GET", "/v1/tenants/{name}/readings", Tenant, BILLED),
    rule("GET", "/v1/tenants/{name}/bundle", Tenant, BILLED),
    rule("GET", "/v1/ledger/key", Tenant, EVERYONE),
    rule("GET", "/v1/ledger/heads", Tenant, EVERYONE),
];

/// What the table says of a request; the head of a document is as its whole.
pub(super) fn rule_of(method: &str, route: &str) -> Option<&'static Rule> {
    let method = if method == "HEAD" { "GET" } else { method };
    TABLE.iter().find(|rule| (rule.method, rule.route) == (method, route))
}

/// Whether a path has any method.
pub(super) fn is_known(route: &str) -> bool {
    TABLE.iter().any(|rule| rule.route == route)
}

/// Whether a role may give a token of another one away.
pub(super) fn may_give(giver: Role, given: Role) -> bool {
    match giver {
        ProviderAdmin => true,
        TenantAdmin => matches!(given, TenantAdmin | TenantUser | Auditor),
        Operator | Billing | TenantUser | Auditor => false,
    }
}
