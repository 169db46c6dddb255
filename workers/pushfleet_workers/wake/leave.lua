-- A drain wants to leave: only if the bell was not rung meanwhile. Whoever puts work after this finds no listener.
-- KEYS  bell, listeners   ARGV  drain, 1 to leave whatever rings
if ARGV[2] ~= '1' and redis.call('LLEN', KEYS[1]) > 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
