-- The backend confirms that a device of a user has all that was written in a conversation until then.
-- KEYS  devices, confirmations of the user
-- ARGV  device, the name that the confirmation is kept under, until when (Unix ms), most names, seconds to live
-- Returns 1 when it was news, 0 when more was confirmed before, -1 for an unknown device.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return -1 end
return advance(KEYS[2], ARGV[2], ARGV[3], ARGV[4], ARGV[5]) and 1 or 0
