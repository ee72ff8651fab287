//! READY=1, STOPPING=1, STATUS= and WATCHDOG=1 to systemd.
