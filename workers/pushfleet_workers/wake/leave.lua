-- A drain wants to leave: only if the bell was not rung meanwhile; then it has heard it, and looks once more. Whoever puts
-- work after it left finds no listener.
-- KEYS  bell, listeners   ARGV  drain, 1 to leave whatever rings
if ARGV[2] ~= '1' and redis.call('DEL', KEYS[1]) == 1 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
