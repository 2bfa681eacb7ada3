//! What goes through the devices of a world: datagrams between them, and packets of their pods.

use std::net::IpAddr;
use std::time::Duration;

use hawser_tunnel::batch::Datagrams;
use hawser_tunnel::device::TICK;
use hawser_tunnel::virtio;

use super::world::{POD, Site, World, address, underlay};

impl World {
    pub(super) fn send(&mut self, site: usize, datagrams: &Datagrams) {
        for (datagram, &to) in datagrams.iter() {
            // A handshake's first message (WireGuard's whitepaper, section 5.4.2).
            self.sites[site].initiations += u32::from(datagram[0] == 1);
            self.wire.push_back((underlay(site), to, datagram.to_vec()));
        }
    }

    pub(super) fn deliver(&mut self) -> bool {
        let mut moved = false;
        while let Some((from, to, datagram)) = self.wire.pop_front() {
            moved = true;
            let site = (0..2).find(|&site| underlay(site) == to).unwrap();
            let Site {
                device,
                inbound,
                delivered,
                ..
            } = &mut self.sites[site];
            let whole = [(0..datagram.len(), from)];
            device.handle_datagrams(inbound, &datagram, whole.into_iter(), self.now);
            let frames = inbound.frames().flat_map(|frame| frame.split());
            delivered.extend(frames.map(|(_, frame)| frame));
            device.count(None, Some(inbound));
            let mut out = Datagrams::default();
            for (datagram, &to) in inbound.datagrams.iter() {
                out.push(datagram, to);
            }
            inbound.clear();
            self.send(site, &out);
        }
        moved
    }

    /// One packet from a cluster's pod to the other's, with a number in it.
    fn packet(&mut self, from: usize, number: u64) {
        let packet = udp(address(from, POD), address(1 - from, POD), number);
        let ethernet = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
        let frame = [&ethernet[..], &packet].concat();
        let Site {
            device, outbound, ..
        } = &mut self.sites[from];
        device.handle_frame(outbound, virtio::Header::COMPLETE, &frame, self.now);
        device.flush(outbound, self.now);
        device.count(Some(outbound), None);
        let mut out = Datagrams::default();
        for (datagram, &to) in outbound.datagrams.iter() {
            out.push(datagram, to);
        }
        outbound.clear();
        self.send(from, &out);
    }

    /// Lets time pass. In each tick a packet goes each way, and both must arrive, as themselves and before the next.
    /// Returns how many packets that were.
    pub(crate) fn carry_for(&mut self, time: Duration) -> u64 {
        let end = self.now + time;
        let mut number = 0;
        while self.now < end {
            number += 1;
            for from in 0..2 {
                self.packet(from, number);
                self.settle();
                let delivered = std::mem::take(&mut self.sites[1 - from].delivered);
                let came: Vec<&[u8]> = delivered.iter().map(|frame| &frame[42..]).collect();
                assert_eq!(came, [number.to_be_bytes()], "packet {number} from {from}");
            }
            self.tick();
        }
        2 * number
    }

    /// Lets time pass without packets.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        for site in 0..2 {
            let mut out = Datagrams::default();
            let at = &mut self.sites[site];
            at.device.handle_timeout(self.now, &mut out);
            if at
                .follower
                .poll_timeout()
                .is_some_and(|due| due <= self.now)
            {
                at.follower.handle_timeout(self.now);
            }
            if let Some(hub) = &mut at.hub
                && hub.poll_timeout().is_some_and(|due| due <= self.now)
            {
                hub.handle_timeout(self.now);
            }
            self.send(site, &out);
            self.settle();
        }
    }

    /// Makes every node shake hands anew.
    pub(crate) fn rekey(&mut self) {
        for site in 0..2 {
            let mut out = Datagrams::default();
            let peers = self.sites[site].device.rekey(None, self.now, &mut out);
            assert_eq!(peers, 1, "nobody to rekey with");
            self.send(site, &out);
            self.settle();
        }
    }
}

/// A UDP packet that carries a number.
fn udp(from: IpAddr, to: IpAddr, number: u64) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        unreachable!("pods of this world have IPv4 addresses");
    };
    let mut packet = vec![0x45, 0, 0, 36, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    // Ports 4000 and 5000, eight bytes; UDP over IPv4 may go without a checksum.
    packet.extend([0x0f, 0xa0, 0x13, 0x88, 0, 16, 0, 0]);
    packet.extend(number.to_be_bytes());
    packet
}
