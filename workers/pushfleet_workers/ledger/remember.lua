-- Deliveries that were accepted although their lease is gone, or will be: nobody is to send them again.
-- KEYS  books, late oks
-- ARGV  for how long they are known (ms), how many more than the books say may have been sent twice, then their ids
local books, oks = KEYS[1], KEYS[2]
pass_when_full(books)
local fields = {}
for at = 3, #ARGV do
  table.insert(fields, ARGV[at])
  table.insert(fields, '1')
end
if #fields > 0 then
  push_all('HSET', oks, fields)
  redis.call('PEXPIRE', oks, ARGV[1])
end
add(books, 'unknown', tonumber(ARGV[2]))
