//! The Geneve header, its options, and the one option of ours (RFC 8926, sections 3.4 and 3.5).

use crate::node::ClusterId;
use crate::reject::Reject;
use crate::vni::Vni;

/// The UDP port of Geneve (RFC 8926, section 3.3).
pub const PORT: u16 = 6081;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 8;

/// Bytes of our option with its own header.
pub const SOURCE_OPTION_LEN: usize = 12;

/// The longest run of options: six bits, in units of four bytes.
pub const MAX_OPTIONS_LEN: usize = 0b11_1111 * 4;

/// The option class of ours: in the range for experiments (RFC 8926, section 7).
pub const SOURCE_OPTION_CLASS: u16 = 0xff48;

/// The type of our option. The highest bit is clear: not critical.
pub const SOURCE_OPTION_TYPE: u8 = 0x01;

/// The bit of the header's second byte that marks a control packet: it is for us, not for a pod.
const CONTROL: u8 = 0x80;

/// The bit of an option's type that marks it critical.
const CRITICAL: u8 = 0x80;

/// What a pod packet is, as an Ethertype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Protocol {
    /// IPv4.
    Ipv4 = 0x0800,
    /// IPv6.
    Ipv6 = 0x86dd,
}

/// What a sender says of a packet: `source cluster ID u16 | flags u16 | source identity u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceOption {
    /// The cluster that the sender claims; the receiver compares it with the peer's.
    pub cluster: u16,
    /// See [`Self::CHECKSUM_NOT_FILLED`]; other bits are ignored.
    pub flags: u16,
    /// The identity that the sender claims.
    pub identity: u32,
}

/// A header that was read, with what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geneve<'a> {
    /// The network.
    pub vni: Vni,
    /// What the payload is.
    pub protocol: Protocol,
    /// Our option, if it is there.
    pub source: Option<SourceOption>,
    /// The pod packet.
    pub payload: &'a [u8],
}

/// The header of a control packet that was read, with what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control<'a> {
    /// The network.
    pub vni: Vni,
    /// What the payload is, as an Ethertype.
    pub protocol: u16,
    /// Our option, if it is there.
    pub source: Option<SourceOption>,
    /// The message.
    pub payload: &'a [u8],
}

/// The fixed header and our option, ready to be put in front of a pod packet.
pub type Encoded = [u8; HEADER_LEN + SOURCE_OPTION_LEN];

impl SourceOption {
    /// The transport checksum holds only the sum of the pseudo-header, as a kernel leaves it for
    /// offload. The AEAD guards the packet on its way.
    pub const CHECKSUM_NOT_FILLED: u16 = 0x1;

    /// An option of this node.
    pub fn new(cluster: ClusterId, flags: u16, identity: crate::identity::Identity) -> Self {
        Self {
            cluster: cluster.into(),
            flags,
            identity: identity.into(),
        }
    }

    fn parse(data: &[u8]) -> Result<Self, Reject> {
        let &[c0, c1, f0, f1, i0, i1, i2, i3] = data else {
            return Err(Reject::OptionMalformed);
        };
        Ok(Self {
            cluster: u16::from_be_bytes([c0, c1]),
            flags: u16::from_be_bytes([f0, f1]),
            identity: u32::from_be_bytes([i0, i1, i2, i3]),
        })
    }
}

/// Writes a header with our option.
pub fn encode(vni: Vni, protocol: Protocol, option: SourceOption) -> Encoded {
    header(vni, 0, protocol as u16, option)
}

/// Writes the header of a control packet with our option.
pub fn encode_control(vni: Vni, protocol: u16, option: SourceOption) -> Encoded {
    header(vni, CONTROL, protocol, option)
}

fn header(vni: Vni, bits: u8, protocol: u16, option: SourceOption) -> Encoded {
    let mut bytes = [0; HEADER_LEN + SOURCE_OPTION_LEN];
    bytes[0] = 3; // version 0; options are 3 × 4 bytes long
    bytes[1] = bits;
    bytes[2..4].copy_from_slice(&protocol.to_be_bytes());
    bytes[4..7].copy_from_slice(&vni.to_be_bytes());
    bytes[8..10].copy_from_slice(&SOURCE_OPTION_CLASS.to_be_bytes());
    bytes[10] = SOURCE_OPTION_TYPE;
    bytes[11] = 2; // data is 2 × 4 bytes long
    bytes[12..14].copy_from_slice(&option.cluster.to_be_bytes());
    bytes[14..16].copy_from_slice(&option.flags.to_be_bytes());
    bytes[16..20].copy_from_slice(&option.identity.to_be_bytes());
    bytes
}

/// Reads a header and its options. Reserved bits are ignored, as section 3.4 demands of receivers.
/// A control packet is refused as [`Reject::GeneveControl`]; [`parse_control`] reads it.
pub fn parse(bytes: &[u8]) -> Result<Geneve<'_>, Reject> {
    let (header, options, payload) = split(bytes)?;
    if header[1] & CONTROL != 0 {
        return Err(Reject::GeneveControl);
    }
    let source = parse_options(options)?;
    let protocol = match u16::from_be_bytes([header[2], header[3]]) {
        0x0800 => Protocol::Ipv4,
        0x86dd => Protocol::Ipv6,
        _ => return Err(Reject::GeneveProtocol),
    };
    let vni = Vni::from_be_bytes([header[4], header[5], header[6]]);
    Ok(Geneve {
        vni,
        protocol,
        source,
        payload,
    })
}

/// Reads a control packet: what [`parse`] refused as [`Reject::GeneveControl`], so that the way of
/// pod packets has no branch for it.
pub fn parse_control(bytes: &[u8]) -> Result<Control<'_>, Reject> {
    let (header, options, payload) = split(bytes)?;
    if header[1] & CONTROL == 0 {
        return Err(Reject::GeneveControl);
    }
    Ok(Control {
        vni: Vni::from_be_bytes([header[4], header[5], header[6]]),
        protocol: u16::from_be_bytes([header[2], header[3]]),
        source: parse_options(options)?,
        payload,
    })
}

/// The fixed header, the options and the payload.
type Parts<'a> = (&'a [u8; HEADER_LEN], &'a [u8], &'a [u8]);

fn split(bytes: &[u8]) -> Result<Parts<'_>, Reject> {
    let (header, rest) = bytes
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(Reject::GeneveTruncated)?;
    if header[0] >> 6 != 0 {
        return Err(Reject::GeneveVersion);
    }
    let options_len = usize::from(header[0] & 0b11_1111) * 4;
    let (options, payload) = rest
        .split_at_checked(options_len)
        .ok_or(Reject::GeneveTruncated)?;
    Ok((header, options, payload))
}

fn parse_options(mut options: &[u8]) -> Result<Option<SourceOption>, Reject> {
    let mut source = None;
    while !options.is_empty() {
        let (header, rest) = options
            .split_first_chunk::<4>()
            .ok_or(Reject::GeneveOptionLength)?;
        let length = usize::from(header[3] & 0b1_1111) * 4;
        if rest.len() < length {
            return Err(Reject::GeneveOptionLength);
        }
        let (data, after) = rest.split_at(length);
        let class = u16::from_be_bytes([header[0], header[1]]);
        if (class, header[2]) == (SOURCE_OPTION_CLASS, SOURCE_OPTION_TYPE) {
            if source.replace(SourceOption::parse(data)?).is_some() {
                return Err(Reject::OptionTwice);
            }
        } else if header[2] & CRITICAL != 0 {
            return Err(Reject::GeneveCriticalOption);
        }
        options = after;
    }
    Ok(source)
}

#[cfg(test)]
mod tests;
