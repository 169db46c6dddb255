-- A device shows no notifications, as of a registration of it.
-- KEYS  devices of the user   ARGV  device, registered_at_ms   Returns whether it is known, and did not register since.
local device = read(KEYS[1], ARGV[1])
if not device or registered_at(device) > tonumber(ARGV[2]) then return 0 end
device[PERMITTED] = false
write(KEYS[1], ARGV[1], device)
return 1
