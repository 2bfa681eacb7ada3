//! The name of this machine.

/// It in lower case; `hub`, where the system says none.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.unwrap_or_default().trim().to_ascii_lowercase();
    if name.is_empty() || name == "(none)" {
        return "hub".to_owned();
    }
    name
}
