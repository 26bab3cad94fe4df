//! Lists in annotations: ports, ranges of ports, networks.

use ipnet::IpNet;

use super::Include;

/// Most ports of one annotation: they become one command line. Who wants more excluded wants no mesh.
const PORTS_MAX: usize = 1_024;
/// Most networks of one annotation.
const CIDRS_MAX: usize = 1_024;

/// Ports separated by commas; nothing is an empty list.
pub(super) fn ports(value: &str) -> Result<Vec<u16>, String> {
    bounded(items(value).map(port).collect::<Result<_, _>>()?, PORTS_MAX, "ports")
}

/// `*`, or ports.
pub(super) fn included_ports(value: &str) -> Result<Include<u16>, String> {
    if value.trim() == "*" { Ok(Include::All) } else { ports(value).map(Include::Only) }
}

/// Ports and ranges (`4222,6222-6224`).
pub(super) fn port_ranges(value: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for item in items(value) {
        match item.split_once('-') {
            None => ports.push(port(item)?),
            Some((first, last)) => {
                let (first, last) = (port(first.trim())?, port(last.trim())?);
                if first > last {
                    return Err(format!("{item:?} ends before it begins"));
                }
                ports.extend(first..=last);
            }
        }
        if ports.len() > PORTS_MAX {
            break;
        }
    }
    bounded(ports, PORTS_MAX, "ports")
}

/// Networks separated by commas; nothing is an empty list.
pub(super) fn cidrs(value: &str) -> Result<Vec<IpNet>, String> {
    bounded(items(value).map(cidr).collect::<Result<_, _>>()?, CIDRS_MAX, "networks")
}

/// `*`, or networks.
pub(super) fn included_cidrs(value: &str) -> Result<Include<IpNet>, String> {
    if value.trim() == "*" { Ok(Include::All) } else { cidrs(value).map(Include::Only) }
}

fn items(value: &str) -> impl Iterator<Item = &str> {
    let value = value.trim();
    let is_any = !value.is_empty();
    value.split(',').map(str::trim).filter(move |_| is_any)
}

fn port(item: &str) -> Result<u16, String> {
    let is_number = item.bytes().all(|byte| byte.is_ascii_digit());
    match item.parse::<u16>() {
        Ok(port) if port > 0 && is_number => Ok(port),
        Ok(_) | Err(_) => Err(format!("{item:?} is not a port from 1 to 65535")),
    }
}

fn cidr(item: &str) -> Result<IpNet, String> {
    let network = item.parse::<IpNet>().or_else(|_| item.parse::<std::net::IpAddr>().map(IpNet::from));
    network
        .map(|network| network.trunc())
        .map_err(|_| format!("{item:?} is not a network such as 10.0.0.0/8"))
}

fn bounded<T>(items: Vec<T>, max: usize, what: &str) -> Result<Vec<T>, String> {
    if items.len() > max { Err(format!("these are more than {max} {what}")) } else { Ok(items) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!(ports(" 80, 443 "), Ok(vec![80, 443]));
        assert_eq!(ports(""), Ok(vec![]));
        assert_eq!(included_ports("*"), Ok(Include::All));
        assert_eq!(included_ports(""), Ok(Include::Only(vec![])));
        assert_eq!(port_ranges("25,587-589"), Ok(vec![25, 587, 588, 589]));
        assert_eq!(cidrs("10.1.2.3/8,fd00::1").map(|list| list.len()), Ok(2));
        assert_eq!(cidrs("10.1.2.3/8").map(|list| list[0].to_string()), Ok("10.0.0.0/8".to_owned()));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for value in ["0", "65536", "80,", ",", "+80", "http", "80 443", "*", "1-2"] {
            assert!(ports(value).is_err(), "{value}");
        }
        for value in ["9-8", "1-", "-1", "1-65535"] {
            assert!(port_ranges(value).is_err(), "{value}");
        }
        for value in ["10.0.0.0/33", "all", "10.0.0", "*,10.0.0.0/8"] {
            assert!(included_cidrs(value).is_err(), "{value}");
        }
    }
}
