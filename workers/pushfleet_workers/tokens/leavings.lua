-- What the fleet put down of a user after they were erased goes as well, unless they have registered again.
-- KEYS  devices, what the fleet puts down by itself
-- Returns how many keys went.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
return redis.call('UNLINK', unpack(KEYS, 2))
