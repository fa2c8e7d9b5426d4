//! Which web pages may connect. A browser says in `Origin` where a page is from; other clients do not say it.

use tokio_tungstenite::tungstenite::http::{HeaderMap, header};

/// An exact list: an origin is in it byte for byte, or it is not.
#[derive(Debug)]
pub struct Origins(Vec<Box<[u8]>>);

impl Origins {
    pub fn new(listed: &[String]) -> Self {
        Self(listed.iter().map(|origin| origin.as_bytes().into()).collect())
    }

    /// Whether a request with these headers may go on: it is not of a browser, or of a page that is listed, or there is no
    /// list. More than one `Origin` is nobody's.
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let mut said = headers.get_all(header::ORIGIN).iter();
        match (said.next(), said.next()) {
            (None, _) => true,
            (Some(origin), None) => self.0.iter().any(|listed| **listed == *origin.as_bytes()),
            (Some(_), Some(_)) => false,
        }
    }
}

/// What is wrong with an origin in the configuration: one that no browser would ever send.
pub fn check_origin(origin: &str) -> Result<(), &'static str> {
    let Some((scheme, host)) = origin.split_once("://") else {
        return Err("must be of the form https://host or https://host:port");
    };
    if scheme.is_empty() || host.is_empty() || host.contains(['/', '?', '#', '@', '*', ',', ' ']) {
        return Err("must be a scheme, a host and perhaps a port, without a path or a wildcard");
    }
    if !origin.is_ascii() || origin.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_control()) {
        return Err("must be in lower case, as browsers send it");
    }
    if (scheme == "https" && host.ends_with(":443")) || (scheme == "http" && host.ends_with(":80")) {
        return Err("must not name the scheme's own port, which browsers leave out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::http::HeaderValue;

    fn admits(listed: &[&str], said: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for origin in said {
            headers.append(header::ORIGIN, HeaderValue::from_static(origin));
        }
        Origins::new(&listed.iter().map(ToString::to_string).collect::<Vec<_>>()).admit(&headers)
    }

    #[test]
    fn an_origin_is_listed_exactly_or_not_at_all() {
        let listed = &["https://trade.example.com"];
        assert!(admits(listed, &["https://trade.example.com"]));
        assert!(admits(listed, &[]), "not a browser");
        for other in [
            "http://trade.example.com",
            "https://trade.example.com:8443",
            "https://trade.example.com.evil.org",
            "https://evil.org/https://trade.example.com",
            "HTTPS://trade.example.com",
            "null",
            "",
        ] {
            assert!(!admits(listed, &[other]), "{other}");
        }
        assert!(!admits(listed, &["https://trade.example.com", "https://evil.org"]));
        assert!(admits(&[], &["https://evil.org"]), "without a list nobody is asked");
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_a_problem() {
        for good in ["https://a.example", "http://localhost:8080", "https://[::1]:1"] {
            assert_eq!(check_origin(good), Ok(()));
        }
        for bad in [
            "*",
            "a.example",
            "https://a.example/",
            "https://*.example",
            "https://A.example",
            "https://a:443",
        ] {
            assert!(check_origin(bad).is_err(), "{bad}");
        }
    }
}
