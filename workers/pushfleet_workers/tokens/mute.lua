-- A device shows no notifications.   KEYS  devices of the user   ARGV  device   Returns whether it is known.
local device = read(KEYS[1], ARGV[1])
if not device then return 0 end
device[PERMITTED] = false
write(KEYS[1], ARGV[1], device)
return 1
