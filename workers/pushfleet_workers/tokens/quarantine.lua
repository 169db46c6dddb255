-- A token is passed over until a time.
-- KEYS  devices of the user   ARGV  device, token, until_ms   Returns whether the device has it.
local device, found = read(KEYS[1], ARGV[1]), 0
if not device then return 0 end
for _, channel in ipairs(device[CHANNELS]) do
  if channel[TOKEN] == ARGV[2] then channel[QUARANTINED_UNTIL], found = tonumber(ARGV[3]), 1 end
end
if found == 1 then write(KEYS[1], ARGV[1], device) end
return found
