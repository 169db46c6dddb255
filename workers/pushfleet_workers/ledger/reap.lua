-- Work of a process that stopped beating goes back to its lane.
-- KEYS  books, owners, leased of the owner, suspect, dead, ready urgent/normal/bulk
-- ARGV  owner, about how many dead letters are kept
-- Returns the number of deliveries given back, or -1 when the owner lives.
local deadline = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not deadline or tonumber(deadline) > now_ms() then return -1 end
local lost = as_lost(redis.call('HVALS', KEYS[3]), function(lost) return lost + 1 end)
redis.call('DEL', KEYS[3])
redis.call('ZREM', KEYS[2], ARGV[1])
return return_lost(lost, KEYS[1], KEYS[4], KEYS[5], ARGV[2], {KEYS[6], KEYS[7], KEYS[8]})
