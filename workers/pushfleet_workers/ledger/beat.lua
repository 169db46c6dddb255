-- A process says that it lives: its leases stand for another while.
-- KEYS  owners, leased of the owner
-- ARGV  owner, lease_ms
-- Returns how many leases it has.
local leases = redis.call('HLEN', KEYS[2])
if leases == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return 0
end
pass_when_full(KEYS[2])
redis.call('ZADD', KEYS[1], now_ms() + tonumber(ARGV[2]), ARGV[1])
return leases
