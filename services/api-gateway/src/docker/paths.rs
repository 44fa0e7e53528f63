//! Docker's paths as the router needs them. dockerd matches `/images/{name:.*}/json` by its last
//! segment; here the slashes inside the name are escaped first, so that a name is one segment for
//! the router and the plain name again for the handler. A container called `json` stays reachable.

use axum::http::Method;

/// Rewrites a canonical, unversioned path.
pub(crate) fn routable(method: &Method, path: &str) -> String {
    if path == "/networks/" {
        return "/networks".to_owned();
    }
    let path = escape_name(method, path);
    match path.rsplit_once('/') {
        // A name may be a word that is a path of its own for another method.
        Some((parent, last)) if !parent.is_empty() && is_name(method, parent, last) => {
            let mut first = last.bytes();
            match first.next() {
                Some(byte) if byte.is_ascii_alphanumeric() => format!("{parent}/%{byte:02X}{}", &last[1..]),
                _ => path,
            }
        }
        _ => path,
    }
}

/// Whether the last segment is a thing's name rather than an action.
fn is_name(method: &Method, parent: &str, last: &str) -> bool {
    let collection = parent.rfind('/') == Some(0);
    match *method {
        Method::DELETE => collection,
        Method::GET | Method::PUT => collection && matches!(last, "create" | "prune"),
        _ => false,
    }
}

/// Escapes the slashes inside an image's, plugin's or distribution's name, and in a link's to be removed.
fn escape_name(method: &Method, path: &str) -> String {
    if let (&Method::DELETE, Some(link)) = (method, path.strip_prefix("/containers/")) {
        return format!("/containers/{}", link.replace('/', "%2F"));
    }
    let names = ["/images/", "/distribution/", "/plugins/"];
    let Some((root, rest)) = names.iter().find_map(|root| path.strip_prefix(root).map(|rest| (*root, rest))) else {
        return path.to_owned();
    };
    if *method == Method::DELETE {
        return format!("{root}{}", rest.replace('/', "%2F"));
    }
    match rest.rsplit_once('/') {
        Some((name, action)) => format!("{root}{}/{action}", name.replace('/', "%2F")),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_slashes_is_one_segment() {
        assert_eq!(routable(&Method::GET, "/images/r:5000/a/b:1/json"), "/images/r:5000%2Fa%2Fb:1/json");
        assert_eq!(routable(&Method::POST, "/images/a/b/tag"), "/images/a%2Fb/tag");
        assert_eq!(routable(&Method::DELETE, "/images/a/json"), "/images/%61%2Fjson");
        assert_eq!(routable(&Method::DELETE, "/containers/web/db"), "/containers/%77eb%2Fdb");
        assert_eq!(routable(&Method::GET, "/images/json"), "/images/json");
        assert_eq!(routable(&Method::POST, "/images/create"), "/images/create");
    }

    #[test]
    fn a_thing_may_be_called_like_an_action() {
        assert_eq!(routable(&Method::DELETE, "/containers/json"), "/containers/%6Ason");
        assert_eq!(routable(&Method::GET, "/networks/prune"), "/networks/%70rune");
        assert_eq!(routable(&Method::POST, "/networks/prune"), "/networks/prune");
        assert_eq!(routable(&Method::GET, "/containers/json/json"), "/containers/json/json");
    }

    #[test]
    fn a_trailing_slash_works_on_networks_alone() {
        assert_eq!(routable(&Method::GET, "/networks/"), "/networks");
        assert_eq!(routable(&Method::GET, "/volumes/"), "/volumes/");
    }
}
