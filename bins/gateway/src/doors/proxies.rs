//! The client's address behind proxies.
//!
//! A header that says it is believed only as far as it was written by proxies that are listed: it is read from its right
//! end, where the nearest proxy has appended, and the first address that is not a listed proxy's is the client's. What
//! stands left of it, the client may have made up. Which of the two headers the proxies write must be configured: the other
//! one would come through from the client.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, header};

use crate::config::ForwardedHeader;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[derive(Debug)]
pub struct Proxies {
    networks: Vec<IpNet>,
    header: ForwardedHeader,
}

impl Proxies {
    pub fn new(networks: &[IpNet], header: ForwardedHeader) -> Self {
        Self { networks: networks.to_vec(), header }
    }

    /// Whether that address is of a proxy that is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Who speaks through the proxy `peer`. What cannot be read counts as the proxy that passed it on.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let name = match self.header {
            ForwardedHeader::XForwardedFor => X_FORWARDED_FOR,
            ForwardedHeader::Forwarded => header::FORWARDED,
        };
        let mut nearest = peer.to_canonical();
        let values = headers.get_all(name).iter().collect::<Vec<_>>();
        for value in values.into_iter().rev() {
            let Ok(value) = value.to_str() else { return nearest };
            for hop in value.rsplit(',') {
                let said = match self.header {
                    ForwardedHeader::XForwardedFor => address(hop.trim()),
                    ForwardedHeader::Forwarded => forwarded_for(hop),
                };
                let Some(said) = said else { return nearest };
                nearest = said.to_canonical();
                if !self.trusts(nearest) {
                    return nearest;
                }
            }
        }
        nearest
    }
}

/// The `for` of one element of a `Forwarded` header (RFC 7239).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let (_, node) = element
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    address(node.trim().trim_matches('"'))
}

/// An address, perhaps in brackets, perhaps with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|with_port| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::http::HeaderValue;

    fn client(header: ForwardedHeader, values: &[(&'static str, &'static str)]) -> String {
        let networks = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Proxies::new(&networks, header).client("10.0.0.1".parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_is_the_client() {
        let of = |value| client(ForwardedHeader::XForwardedFor, &[("x-forwarded-for", value)]);
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("1.1.1.1, 192.0.2.7"), "192.0.2.7", "what the client made up stands on the left");
        assert_eq!(of("1.1.1.1, 192.0.2.7, 10.3.0.1, fd00::2"), "192.0.2.7");
        assert_eq!(of("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("1.1.1.1, unknown, 10.3.0.1"), "10.3.0.1", "unreadable: who passed it on");
        assert_eq!(of(""), "10.0.0.1");
        let twice = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.7")];
        assert_eq!(client(ForwardedHeader::XForwardedFor, &twice), "192.0.2.7");
    }

    #[test]
    fn only_the_configured_header_counts() {
        let both = [("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=\"[2001:db8::1]:1\";proto=https")];
        assert_eq!(client(ForwardedHeader::XForwardedFor, &both), "192.0.2.1");
        assert_eq!(client(ForwardedHeader::Forwarded, &both), "2001:db8::1");
        assert_eq!(client(ForwardedHeader::Forwarded, &both[..1]), "10.0.0.1");
    }

    #[test]
    fn only_listed_networks_are_trusted() {
        let proxies = Proxies::new(&["10.0.0.0/8".parse().unwrap()], ForwardedHeader::XForwardedFor);
        assert!(proxies.trusts("::ffff:10.1.1.1".parse().unwrap()));
        assert!(!proxies.trusts("11.0.0.1".parse().unwrap()));
    }
}
