//! Messages with control data, and socket options. `unsafe` is one system call a block.

use std::io;
use std::mem;
use std::net::SocketAddr;

use rustix::fd::{AsFd, AsRawFd};
use rustix::net::{SocketFlags, sockopt};

use super::control;

/// Flags of all sockets.
pub const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Bytes of what may wait to be read.
const RECEIVE_BUFFER: usize = 8 << 20;

/// What [`receive_message`] put into the buffers.
#[derive(Debug)]
pub struct Message {
    /// Bytes of data.
    pub length: usize,
    /// Who sent it. `None` on connected sockets of some protocols.
    pub source: Option<SocketAddr>,
    /// Bytes of control messages.
    pub control: usize,
}

/// recvmsg(2). What doesn't fit into the buffers is cut off.
#[allow(unsafe_code)]
pub fn receive_message(
    fd: &impl AsFd,
    data: &mut [u8],
    control: &mut [u8],
    flags: i32,
) -> io::Result<Message> {
    let mut address = [0u8; control::ADDRESS];
    // SAFETY: all zeroes is a valid value of this struct (null pointers, zero lengths).
    let mut message = unsafe { mem::zeroed::<libc::msghdr>() };
    let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    message.msg_name = address.as_mut_ptr().cast();
    message.msg_namelen = address.len() as u32;
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = control.len() as _;
    // SAFETY: every pointer in `message` is to live memory of the length beside it.
    let length = result(unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &mut message, flags) })?;
    let named = address.get(..message.msg_namelen as usize);
    Ok(Message {
        length: length.min(data.len()),
        source: named.and_then(control::address),
        control: (message.msg_controllen as usize).min(control.len()),
    })
}

/// sendmsg(2) with control messages.
#[allow(unsafe_code)]
pub fn send_message(
    fd: &impl AsFd,
    data: &[u8],
    to: &SocketAddr,
    control: &[u8],
) -> io::Result<usize> {
    let (address, length) = control::address_bytes(to);
    // SAFETY: all zeroes is a valid value of this struct (null pointers, zero lengths).
    let mut message = unsafe { mem::zeroed::<libc::msghdr>() };
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    message.msg_name = address.as_ptr().cast_mut().cast();
    message.msg_namelen = length;
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_ptr().cast_mut().cast();
    message.msg_controllen = control.len() as _;
    // SAFETY: every pointer in `message` is to live memory of the length beside it, which the call
    // only reads.
    result(unsafe { libc::sendmsg(fd.as_fd().as_raw_fd(), &message, libc::MSG_NOSIGNAL) })
}

/// Sets an option that is one number.
pub fn set_option(fd: &impl AsFd, level: i32, name: i32, value: u32) -> io::Result<()> {
    set_option_bytes(fd, level, name, &value.to_ne_bytes())
}

/// Sets an option.
#[allow(unsafe_code)]
pub fn set_option_bytes(fd: &impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = u32::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the call only reads `length` bytes of `value`.
    let done = unsafe {
        libc::setsockopt(fd.as_fd().as_raw_fd(), level, name, value.as_ptr().cast(), length)
    };
    result(done as isize).map(drop)
}

/// Makes room for what may wait to be read.
pub fn enlarge_receive_buffer(fd: &impl AsFd) -> io::Result<()> {
    // The root of a user namespace may not exceed net.core.rmem_max (`sockopt_capable`).
    if sockopt::set_socket_recv_buffer_size_force(fd, RECEIVE_BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(fd, RECEIVE_BUFFER)?;
    }
    Ok(())
}

fn result(value: isize) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::last_os_error())
}
