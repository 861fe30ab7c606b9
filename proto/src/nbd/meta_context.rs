//! Metadata contexts and the queries that find them: NBD proto.md, "Metadata querying".

/// A context that the client selected; block status chunks name it by its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MetaContext {
    /// Its place in [`super::Export::contexts`].
    pub id: u32,
    /// Its name: a namespace, a colon, and more.
    pub name: String,
}

/// The contexts that a selection by `queries` yields, each once, in the export's order. A query names one exactly; one
/// that names none, or is a wildcard, selects nothing.
pub(super) fn select(contexts: &[String], queries: &[&[u8]]) -> Vec<MetaContext> {
    numbered(contexts).filter(|context| queries.contains(&context.name.as_bytes())).collect()
}

/// The contexts that a listing by `queries` yields, each once. No query at all lists every one; a query that ends in a
/// colon lists all that begin with it.
pub(super) fn list(contexts: &[String], queries: &[&[u8]]) -> Vec<MetaContext> {
    let matches = |name: &[u8], query: &[u8]| name == query || (query.ends_with(b":") && name.starts_with(query));
    numbered(contexts)
        .filter(|context| queries.is_empty() || queries.iter().any(|query| matches(context.name.as_bytes(), query)))
        .collect()
}

fn numbered(contexts: &[String]) -> impl Iterator<Item = MetaContext> {
    (0_u32..).zip(contexts).map(|(id, name)| MetaContext { id, name: name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts() -> Vec<String> {
        ["base:allocation", "qemu:dirty-bitmap:monday", "qemu:dirty-bitmap:tuesday"].map(str::to_owned).to_vec()
    }

    fn ids(found: &[MetaContext]) -> Vec<u32> {
        found.iter().map(|context| context.id).collect()
    }

    #[test]
    fn a_listing_understands_wildcards_and_no_query_means_everything() {
        let list = |queries: &[&[u8]]| ids(&list(&contexts(), queries));
        assert_eq!(list(&[]), [0, 1, 2]);
        assert_eq!(list(&[b"base:"]), [0]);
        assert_eq!(list(&[b"qemu:dirty-bitmap:"]), [1, 2]);
        assert_eq!(list(&[b"qemu:", b"qemu:dirty-bitmap:monday"]), [1, 2]);
        assert!(list(&[b"x-other:", b"base", b"", b"base:allo"]).is_empty());
    }

    #[test]
    fn a_selection_takes_exact_names_only() {
        let select = |queries: &[&[u8]]| ids(&select(&contexts(), queries));
        assert!(select(&[]).is_empty());
        assert!(select(&[b"base:", b"qemu:", b"base:other"]).is_empty());
        assert_eq!(select(&[b"qemu:dirty-bitmap:tuesday", b"base:allocation", b"base:allocation"]), [0, 2]);
    }
}
