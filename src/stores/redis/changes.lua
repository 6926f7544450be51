-- The changes of a topic after a version, until there are enough of them or bytes: each key with its row, or with the eight bytes of
-- the version of its delete. Comes first: whether there may be more, 2 if the table is not whole, 3 if they are not known; then
-- the table's version and incarnation. One row is read at a time: how long the next one is shows only then.
local changes, rows, about = unpack(KEYS)
local topic_bytes, since, limit, room = unpack(ARGV)
local call, sub = redis.call, string.sub
local version, incarnation, deleted, exists = unpack(call('HMGET', about, 'version', 'incarnation', 'deleted', 'exists'))
local is_whole = (call('ZSCORE', changes, '\255') and '' or false) == exists
if not is_whole or call('HEXISTS', rows, '\255') ~= (exists and 1 or 0) then
    return {2}
end
local standing = call('HGET', rows, '\255' .. topic_bytes)
local known = tonumber(deleted or 0)
if standing and #standing > 8 then
    known = math.max(known, (struct.unpack('>I8', standing, 9)))
end
if (struct.unpack('>I8', since)) < known then
    return {3}
end
limit, room = tonumber(limit), tonumber(room)
local few = 1000
local from, to = '(' .. topic_bytes .. since .. '\255', '(' .. topic_bytes .. '\255'
local version_at = #topic_bytes + 1
local page, last = {1, version, incarnation}, 3
while true do
    local places = call('ZRANGEBYLEX', changes, from, to, 'LIMIT', 0, limit < few and limit or few)
    for at = 1, #places do
        local of, key = sub(places[at], version_at, version_at + 7), sub(places[at], version_at + 8)
        local row = call('HGET', rows, key)
        if not row or sub(row, 9, version_at + 7) ~= topic_bytes then
            row = of
        elseif sub(row, 1, 8) ~= of then
            -- It had another topic in between, and was deleted here; it is here again.
            row = nil
        end
        if row then
            page[last + 1], page[last + 2] = key, row
            last, limit, room = last + 2, limit - 1, room - #key - #row
            if limit <= 0 or room <= 0 then
                return page
            end
        end
    end
    if #places == 0 then
        page[1] = 0
        return page
    end
    from = '(' .. places[#places]
end
