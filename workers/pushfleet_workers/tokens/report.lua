-- The state of the app on a device, as of the report's own time.
-- KEYS  devices, options, badges of the user
-- ARGV  device, state, at_ms, unread ('' for none), lease_ms, seconds to live
-- Returns 1 when it was news, 0 when all of it is older than what is known, -1 for an unknown device.
local device = read(KEYS[1], ARGV[1])
if not device then return -1 end
local news = report(device, ARGV[1], KEYS[3], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]))
if news then write(KEYS[1], ARGV[1], device) end
stay_alive(KEYS[1], KEYS[2], ARGV[6])
return news and 1 or 0
